"""The training loop takes a step from an object with one method, which the layout chooses."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.lm.model import LanguageModel
from stages.lm.training import step as steps
from stages.lm.training.batches import Batch
from stages.lm.training.loop import Fitted, fit
from stages.lm.training.step import StepParts, StepResult
from stages.report import Report
from tests.stages.lm import rounding, tiny

STEPS = 5


class AllForwardThenAllBackward:
    """A schedule as in GPipe: all micro-batches forward, then all of them backward."""

    def __init__(self, parts: StepParts):
        self.parts = parts

    def run(self, step: int, rows: int | None = None) -> StepResult:
        parts = self.parts
        count = rows or parts.rows_per_rank
        losses = []
        for start in range(0, count, parts.micro_batch_size):
            batch = parts.batches.rows(step, start, parts.micro_batch_size)
            losses.append(parts.loss(parts.model, batch))
        for loss in reversed(losses):
            loss.total.backward()
        weight = sum(float(loss.weight) for loss in losses)
        tokens = sum(int(loss.tokens) for loss in losses)
        nats = sum(float(loss.figures["loss"]) for loss in losses)
        return StepResult({"loss": nats / weight}, tokens, gradient_scale=1 / weight)


def train(scratch: Path) -> tuple[LanguageModel, Fitted]:
    model = tiny.model(loud=False)
    fitted = fit(
        model,
        tiny.Repeated(),
        tiny.next_token,
        training=tiny.training(),
        compute=tiny.compute(micro_batch_size=2),
        steps=STEPS,
        scratch=scratch,
        report=Report(),
        guard={},
    )
    return model, fitted


def test_another_schedule_takes_over_the_step_and_trains_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model, fitted = train(tmp_path / "a")
    monkeypatch.setitem(steps.LAYOUTS, "one process", AllForwardThenAllBackward)
    other, also_fitted = train(tmp_path / "b")
    bound = rounding.weight_share(STEPS, 8 * 16 * 48)
    start = tiny.model(loud=False).state_dict()
    shares = rounding.apart(model.state_dict(), other.state_dict(), start)
    assert max(shares.values()) < bound, shares
    losses, same_losses = _losses(fitted), _losses(also_fitted)
    assert same_losses == pytest.approx(losses, rel=bound)
    assert losses[-1] < losses[0]


def _losses(fitted: Fitted) -> list[Any]:
    return [row["loss"] for row in fitted.metrics]


def test_a_step_without_a_row_that_counts_scales_its_gradients_to_nothing():
    parts = StepParts(
        model=tiny.model(),
        batches=tiny.Repeated(),
        loss=lambda model, batch: steps.Loss(
            model(batch["ids"]).sum() * 0, weight=0, tokens=batch["ids"].numel()
        ),
        rows_per_rank=8,
        micro_batch_size=4,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    result = steps.training_step(parts).run(0)
    assert (result.gradient_scale, result.means, result.tokens) == (0.0, {"loss": 0.0}, 8 * 16)


def parts_of(model: LanguageModel, **changes: Any) -> StepParts:
    values: dict[str, Any] = {
        "model": model,
        "batches": tiny.Repeated(),
        "loss": tiny.next_token,
        "rows_per_rank": 8,
        "micro_batch_size": 4,
        "dtype": torch.float32,
        "device": torch.device("cpu"),
    }
    return StepParts(**values | changes)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", ["llama", "llama, grouped queries, own output table", "qwen3"])
def test_parts_that_run_at_the_same_time_give_the_gradients_of_the_whole(
    shape: str, two_threads: None
) -> None:
    whole, parted = tiny.model(**tiny.SHAPES[shape]), tiny.model(**tiny.SHAPES[shape])
    expected = steps.AccumulatedStep(parts_of(whole)).run(0)
    threaded = steps.training_step(parts_of(parted))
    assert isinstance(threaded, steps.ThreadedStep)
    for _ in range(2):  # the first time one after the other, then at the same time
        parted.zero_grad()
        result = threaded.run(0)
        assert result.tokens == expected.tokens
        assert result.gradient_scale == expected.gradient_scale
        assert result.means == pytest.approx(expected.means, rel=1e-5)
        pairs = zip(whole.named_parameters(), parted.parameters(), strict=True)
        for (name, wanted), found in pairs:
            error = (wanted.grad - found.grad).norm() / wanted.grad.norm()
            assert error < 1e-5, name
    assert torch.get_num_threads() == 2


def test_parts_that_run_at_the_same_time_give_the_same_bits_each_time(two_threads: None) -> None:
    model = tiny.model()
    threaded = steps.training_step(parts_of(model))
    threaded.run(0)
    seen = set()
    for _ in range(20):
        model.zero_grad()
        threaded.run(0)
        gradients = torch.cat([one.grad.flatten() for one in model.parameters()])
        seen.add(gradients.numpy().tobytes())
    assert len(seen) == 1


def test_a_part_that_fails_ends_the_step_after_all_others_have_ended(two_threads: None) -> None:
    ended = []

    def loss(model: LanguageModel, batch: Batch) -> steps.Loss:
        if len(ended) >= 2 and threading.current_thread() is threading.main_thread():
            raise ValueError("a bad row")
        found = tiny.next_token(model, batch)
        time.sleep(0.05)
        ended.append(threading.current_thread().name)
        return found

    threaded = steps.training_step(parts_of(tiny.model(), loss=loss, rows_per_rank=4))
    threaded.run(0)
    with pytest.raises(ValueError, match="a bad row"):
        threaded.run(0)
    assert len(ended) == 3
    assert ended[-1].startswith("micro-batch")
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("threads", "micro_batch_size", "shape", "count"),
    [
        (1, 8, "llama", 1),
        (2, 8, "llama", 2),
        (2, 1, "llama", 1),
        (3, 8, "llama", 1),  # a thread would have nothing to do
        (6, 8, "llama", 2),
        (16, 8, "llama", 4),
        (2, 8, "qwen3_moe", 1),
    ],
)
def test_all_parts_of_a_micro_batch_have_as_many_rows_and_threads(
    threads: int, micro_batch_size: int, shape: str, count: int, two_threads: None
) -> None:
    torch.set_num_threads(threads)
    model = tiny.model(**tiny.SHAPES[shape])
    parts = parts_of(model, micro_batch_size=micro_batch_size)
    assert steps.threaded_parts(parts) == count


def test_gradients_of_parts_take_no_more_memory_than_a_bound(
    two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.model()
    monkeypatch.setattr(steps, "MAX_EXTRA_GRADIENT_BYTES", 4 * model.config.parameters().total)
    assert steps.threaded_parts(parts_of(model)) == 2
    monkeypatch.setattr(steps, "MAX_EXTRA_GRADIENT_BYTES", 4 * model.config.parameters().total - 1)
    assert steps.threaded_parts(parts_of(model)) == 1
