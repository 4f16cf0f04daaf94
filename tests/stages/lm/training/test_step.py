"""The training loop takes a step from an object with one method, which the layout chooses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stages.lm.model import LanguageModel
from stages.lm.training import step as steps
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
