"""Muon: orthogonal updates, in the machine's own format, each matrix independent of the others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from stages.lm.training import muon
from stages.lm.training.muon import SAFETY, Muon, orthogonalize, update_flops
from tests.stages.lm.training.test_loop import CrashError, RecordingReport, crash, train

EPSILON = torch.finfo(torch.float32).eps
SLOPE = 989.5  # product of the five polynomials' slopes at 0, which amplify rounding errors


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_singular_values(values: Tensor, columns: int) -> Tensor:
    left, _ = torch.linalg.qr(random(len(values), len(values)))
    right, _ = torch.linalg.qr(random(columns, len(values), seed=1))
    return left @ torch.diag(values) @ right.T


@pytest.mark.parametrize(("dtype", "slack"), [(torch.float32, 1e-3), (torch.bfloat16, 0.05)])
def test_singular_values_from_one_to_a_thousandth_become_about_one(
    dtype: torch.dtype, slack: float
) -> None:
    matrix = with_singular_values(torch.logspace(0, -2.5, 24), 40)
    for shape in (matrix, matrix.T):
        singular = torch.linalg.svdvals(orthogonalize(shape[None], dtype)[0])
        assert 0.85 - slack < float(singular.min()) <= float(singular.max()) < 1.15 + slack


def test_the_slope_of_the_polynomials_is_what_tolerances_count_on() -> None:
    slope = 1.0
    for a, _, _ in muon.POLAR_EXPRESS:
        slope *= a
    assert slope == pytest.approx(SLOPE, rel=2e-3)


def step(
    weights: list[Tensor], gradients: list[Tensor], steps: int = 3, **settings: float
) -> list[Tensor]:
    """The weights after some steps on the same gradients."""
    parameters = [torch.nn.Parameter(weight.clone()) for weight in weights]
    defaults = {"lr": 0.1, "weight_decay": 0.1}
    optimizer = Muon([{"params": parameters}], **(defaults | settings))  # type: ignore[arg-type]
    for _ in range(steps):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def test_the_update_of_a_matrix_does_not_depend_on_the_others() -> None:
    shapes = [(12, 20), (20, 12), (12, 20), (12, 12)]
    weights = [random(*shape, seed=n) for n, shape in enumerate(shapes)]
    gradients = [random(*shape, seed=10 + n) for n, shape in enumerate(shapes)]
    together = step(weights, gradients)
    for one, weight, gradient in zip(together, weights, gradients, strict=True):
        (alone,) = step([weight], [gradient])
        # a product of another batch may be summed in another order
        torch.testing.assert_close(one, alone, atol=3 * 0.1 * SLOPE * EPSILON * 20, rtol=0)


def test_with_its_coefficients_it_is_the_muon_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "POLAR_EXPRESS", ((3.4445, -4.7750, 2.0315),) * 5)
    monkeypatch.setattr(muon, "SAFETY", 1.0)
    weights, gradients = (
        [random(24, 16), random(16, 24)],
        [random(24, 16, seed=2), random(16, 24, seed=3)],
    )
    ours = step(weights, gradients)
    for mine, weight, gradient in zip(ours, weights, gradients, strict=True):
        theirs = torch.nn.Parameter(weight.clone())
        optimizer = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, momentum=0.95)
        for _ in range(3):
            theirs.grad = gradient.clone()
            optimizer.step()
        moved = (theirs.detach() - weight).norm()
        assert float((mine - theirs.detach()).norm() / moved) < 0.05, (
            "it multiplies in bfloat16, of 8 bits"
        )
    assert SAFETY > 1


def test_matrices_without_a_gradient_stay_as_they_are() -> None:
    still, moving = torch.nn.Parameter(random(4, 6)), torch.nn.Parameter(random(4, 6, seed=1))
    before = still.detach().clone()
    moving.grad = random(4, 6, seed=2)
    Muon([{"params": [still, moving]}], lr=0.1, weight_decay=0.1).step()
    assert torch.equal(still.detach(), before)


def test_flops_are_those_of_three_products_per_iteration() -> None:
    assert update_flops([(4, 6), (6, 4)]) == 2 * 5 * (2 * 4 * 4 * 6 + 2 * 4 * 4 * 4 + 2 * 4 * 4 * 6)


@pytest.mark.slow
def test_a_resume_checkpoint_of_pytorchs_muon_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def theirs(
        groups: list[dict], lr: float, weight_decay: float, dtype: torch.dtype
    ) -> torch.optim.Optimizer:
        made = torch.optim.Muon(groups, lr=lr, weight_decay=weight_decay, momentum=0.95)
        for weight in groups[0]["params"]:
            made.state[weight] = {"momentum_buffer": torch.zeros_like(weight)}
        return made

    with monkeypatch.context() as patched:
        patched.setattr("stages.lm.training.optimizers.Muon", theirs)
        with pytest.raises(CrashError):
            train(tmp_path, report=RecordingReport(14, crash), compute={"checkpoint_every": 5})
    report = RecordingReport()
    _, continued = train(tmp_path, report=report)
    assert report.notes == ["continuing after step 10 of 20"]
    losses = [row["loss"] for row in continued.metrics]
    assert losses[-1] < losses[9] < losses[0]
