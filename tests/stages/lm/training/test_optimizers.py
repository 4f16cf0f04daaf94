"""Schedules, optimizers and the rule that skips bad steps."""

from __future__ import annotations

import math

import pytest
import torch

from stages.lm.training.optimizers import SpikeGuard, gradient_norm, make_optimizers, schedule
from tests.stages.lm import tiny


def test_wsd_rises_stays_and_falls_to_nearly_zero() -> None:
    training = tiny.training(lr_schedule={"kind": "wsd", "warmup_share": 0.1, "decay_share": 0.2})
    shares = [schedule(training, step, 100) for step in range(100)]
    assert shares[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert set(shares[10:80]) == {1.0}
    assert shares[80:] == pytest.approx([n / 20 for n in range(20, 0, -1)])


def test_cosine_falls_from_one_to_nearly_zero_after_warm_up() -> None:
    training = tiny.training(lr_schedule={"kind": "cosine", "warmup_share": 0.1})
    shares = [schedule(training, step, 100) for step in range(100)]
    assert shares[10] == 1.0
    assert shares[55] == pytest.approx(0.5)
    assert 0 < shares[-1] < 0.001
    assert shares[10:] == sorted(set(shares[10:]), reverse=True)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_run_of_a_few_steps_still_learns_at_each(steps: int) -> None:
    for kind in ("wsd", "cosine"):
        assert all(
            0 < schedule(tiny.training(lr_schedule={"kind": kind}), step, steps) <= 1
            for step in range(steps)
        )


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_all_else() -> None:
    model = tiny.model(**tiny.SHAPES["qwen3_moe"])
    adamw, muon = make_optimizers(model, tiny.training(optimizer="muon"))
    names = {weight: name for name, weight in model.named_parameters()}
    matrices = {names[weight] for group in muon.param_groups for weight in group["params"]}
    rest = {names[weight] for group in adamw.param_groups for weight in group["params"]}
    assert matrices | rest == set(names.values())
    assert not matrices & rest
    assert {name for name in rest if name.endswith("proj.weight")} == set()
    assert {
        "model.embed_tokens.weight",
        "model.layers.0.mlp.gate.weight",
        "model.norm.weight",
    } <= rest
    assert all(
        group["weight_decay"] == 0 for group in adamw.param_groups if group["params"][0].ndim == 1
    )


def test_a_muon_step_moves_a_matrix_by_a_nearly_orthogonal_one() -> None:
    model = tiny.model()
    weight = model.model.layers[0].self_attn.q_proj.weight
    before = weight.detach().clone()
    optimizers = make_optimizers(
        model, tiny.training(optimizer="muon", weight_decay=0.0, muon_learning_rate=0.1)
    )
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    optimizers[1].step()
    singular = torch.linalg.svdvals((before - weight.detach()) / 0.1)
    assert float(singular.min()) > 0.3
    assert float(singular.max()) < 1.4


def test_the_first_adamw_step_moves_every_weight_by_the_learning_rate() -> None:
    model = tiny.model()
    weight = model.model.norm.weight
    before = weight.detach().clone()
    (optimizer,) = make_optimizers(model, tiny.training(optimizer="adamw", learning_rate=0.01))
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    torch.testing.assert_close(
        (before - weight.detach()).abs(), torch.full_like(before, 0.01), rtol=1e-4, atol=1e-6
    )


def test_gradient_norm_is_that_of_all_gradients_together() -> None:
    model = tiny.model()
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    assert float(gradient_norm(model)) == pytest.approx(
        math.sqrt(model.config.parameters().total), rel=1e-5
    )


def test_spikes_and_values_that_are_not_finite_are_bad_and_not_remembered() -> None:
    guard = SpikeGuard(10.0)
    assert guard.is_bad(math.nan, 1.0)
    assert guard.is_bad(1.0, math.inf)
    assert not guard.is_bad(1.0, 500.0)  # nothing is usual yet
    for _ in range(20):
        assert not guard.is_bad(1.0, 1.0)
    assert guard.is_bad(1.0, 11.0)
    assert not guard.is_bad(1.0, 9.0)
    assert 11.0 not in guard.norms
