"""The forward and backward passes of a training step: one object with one method, by layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from stages.lm import precision
from stages.lm.model import LanguageModel
from stages.lm.parallel import collectives, fsdp
from stages.lm.training.batches import Batch, Batches

MICRO_BATCH_TOKENS = {"cpu": 4096, "cuda": 32768}


@dataclass(frozen=True)
class Loss:
    """The loss of one micro-batch. All values are sums over its rows.

    Attributes:
        total: What training minimizes.
        weight: What the sums are divided by: the number of labelled tokens, or of pairs.
        tokens: Tokens that the model read.
        figures: Further sums for the metrics table, by column. A figure named `loss` replaces
            `total` in that table.
    """

    total: Tensor
    weight: Tensor | float
    tokens: Tensor | int
    figures: Mapping[str, Tensor] = field(default_factory=dict)


LossFunction = Callable[[LanguageModel, Batch], Loss]


@dataclass(frozen=True)
class StepResult:
    """What the passes of one step computed, over the rows of all ranks.

    Attributes:
        means: Means for the metrics table, by column. `loss` is always among them.
        tokens: Tokens that the model read.
        gradient_scale: What the parameters' gradients have to be multiplied with, to be those of
            the mean loss. 0 if no row counts, and then there is nothing to learn.
    """

    means: dict[str, float]
    tokens: int
    gradient_scale: float


class TrainingStep(Protocol):
    """The forward and backward passes of a step, in the order that a layout needs.

    The training loop knows nothing else of them. A new layout, such as a pipeline with its
    schedule, is another class with this method, and a row in `LAYOUTS`.
    """

    def run(self, step: int, rows: int | None = None) -> StepResult:
        """Add the gradients of one batch to the parameters. All ranks must call it.

        Args:
            step: Number of the step, which determines the batch.
            rows: How many of this rank's rows to process, a multiple of `micro_batch_size`.
                Default: all.
        """


@dataclass(frozen=True)
class StepParts:
    """What a step is made of.

    Attributes:
        model: The model whose gradients are computed.
        batches: The training data.
        loss: The loss of a micro-batch.
        rows_per_rank: Rows of a batch that each rank processes.
        micro_batch_size: Rows of one forward pass, a divisor of `rows_per_rank`.
        dtype: Number format of the matrix products.
        device: The device that the model is on.
    """

    model: LanguageModel
    batches: Batches
    loss: LossFunction
    rows_per_rank: int
    micro_batch_size: int
    dtype: torch.dtype
    device: torch.device


class AccumulatedStep:
    """Micro-batches one after another, forward and backward, with all layers in one process."""

    def __init__(self, parts: StepParts):
        self.parts = parts

    def run(self, step: int, rows: int | None = None) -> StepResult:
        parts = self.parts
        first = collectives.rank() * parts.rows_per_rank
        end = first + (rows or parts.rows_per_rank)
        sums: dict[str, Any] = {"weight": 0.0, "tokens": 0}
        for start in range(first, end, parts.micro_batch_size):
            batch = parts.batches.rows(step, start, parts.micro_batch_size)
            self.before_micro_batch(is_last=start + parts.micro_batch_size == end)
            for name, value in self._backward(batch).items():
                sums[name] = sums.get(name, 0.0) + value
        # Only here does the host wait for the device.
        on_rank = {name: float(value) for name, value in sums.items()}
        return self._result(collectives.all_reduce(on_rank, parts.device))

    def before_micro_batch(self, is_last: bool) -> None:
        """Prepare for a micro-batch. `is_last`: the step has no other after it."""

    def gradient_factor(self) -> float:
        """Return what turns the parameters' gradients into sums over all ranks."""
        return 1.0

    def _backward(self, batch: Batch) -> dict[str, Tensor | float]:
        """Forward and backward pass of one micro-batch. Returns its sums."""
        parts = self.parts
        on_device: dict[str, Tensor] = {}
        for name, tensor in batch.items():
            on_device[name] = tensor.to(parts.device, non_blocking=True)
        with precision.autocast(parts.dtype, parts.device):
            loss = parts.loss(parts.model, on_device)
        loss.total.backward()
        return {
            "loss": loss.total.detach(),
            **loss.figures,
            "weight": loss.weight,
            "tokens": loss.tokens,
        }

    def _result(self, sums: dict[str, float]) -> StepResult:
        weight = sums.pop("weight")
        tokens = int(sums.pop("tokens"))
        if not weight:
            return StepResult(dict.fromkeys(sums, 0.0), tokens, gradient_scale=0.0)
        means = {name: value / weight for name, value in sums.items()}
        return StepResult(means, tokens, gradient_scale=self.gradient_factor() / weight)


class ShardedStep(AccumulatedStep):
    """The same on several ranks, with weights and gradients sharded over them (FSDP2, HSDP)."""

    def before_micro_batch(self, is_last: bool) -> None:
        fsdp.set_is_last_micro_batch(self.parts.model, is_last)

    def gradient_factor(self) -> float:
        return fsdp.gradient_factor()


LAYOUTS: dict[str, Callable[[StepParts], TrainingStep]] = {
    "one process": AccumulatedStep,
    "sharded": ShardedStep,
}


def training_step(parts: StepParts) -> TrainingStep:
    """Return the forward and backward passes for the layout of this training.

    Args:
        parts: What the step is made of.
    """
    layout = "sharded" if collectives.world_size() > 1 else "one process"
    return LAYOUTS[layout](parts)


def choose_micro_batch_size(
    rows_per_rank: int, requested: int, tokens_per_row: int, device: torch.device
) -> int:
    """Return the rows of one pass: a divisor of `rows_per_rank`, so all passes have one shape.

    Args:
        rows_per_rank: Rows of a batch that each rank processes.
        requested: The setting `compute.micro_batch_size`; 0 chooses by the device.
        tokens_per_row: Tokens of one row.
        device: The device that the model is on.
    """
    default = max(1, MICRO_BATCH_TOKENS[device.type] // tokens_per_row)
    return largest_divisor(rows_per_rank, requested or default)


def largest_divisor(number: int, limit: int) -> int:
    """Return the largest divisor of `number` that is at most `limit`."""
    candidates = range(1, min(number, limit) + 1)
    return max(divisor for divisor in candidates if number % divisor == 0)
