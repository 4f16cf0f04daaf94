"""One training step: the gradients of a loss over this rank's rows of a batch, in micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

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


class TrainingStep:
    """Runs the forward and backward passes of a step.

    `gradients` is all that the training loop needs of it, so that another schedule, such as a
    pipeline, can take its place.

    Args:
        model: The model whose gradients are computed.
        batches: The training data.
        loss: The loss of a micro-batch.
        rows_per_rank: Rows of a batch that each rank processes.
        micro_batch_size: Rows of one forward pass, a divisor of `rows_per_rank`.
        dtype: Number format of the matrix products.
        device: The device that the model is on.
    """

    def __init__(
        self,
        model: LanguageModel,
        batches: Batches,
        loss: LossFunction,
        *,
        rows_per_rank: int,
        micro_batch_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ):
        self.model = model
        self.batches = batches
        self.loss = loss
        self.rows_per_rank = rows_per_rank
        self.micro_batch_size = micro_batch_size
        self.dtype = dtype
        self.device = device

    def gradients(self, step: int, rows: int | None = None) -> dict[str, float]:
        """Add the gradients of one batch to the parameters.

        Args:
            step: Number of the step, which determines the batch.
            rows: How many of this rank's rows to process, a multiple of `micro_batch_size`.
                Default: all.

        Returns:
            Sums over these rows: `weight`, `tokens`, `loss` and the figures of the loss function.
        """
        first = collectives.rank() * self.rows_per_rank
        end = first + (rows or self.rows_per_rank)
        sums: dict[str, Any] = {"weight": 0.0, "tokens": 0}
        for start in range(first, end, self.micro_batch_size):
            batch = self.batches.rows(step, start, self.micro_batch_size)
            is_last = start + self.micro_batch_size == end
            fsdp.set_is_last_micro_batch(self.model, is_last)
            for name, value in self._backward(batch).items():
                sums[name] = sums.get(name, 0.0) + value
        # Only here does the host wait for the device.
        return {name: float(value) for name, value in sums.items()}

    def _backward(self, batch: Batch) -> dict[str, Tensor | float]:
        """Forward and backward pass of one micro-batch. Returns its sums."""
        on_device = {
            name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()
        }
        with precision.autocast(self.dtype, self.device):
            loss = self.loss(self.model, on_device)
        loss.total.backward()
        return {
            "loss": loss.total.detach(),
            **loss.figures,
            "weight": loss.weight,
            "tokens": loss.tokens,
        }


def choose_micro_batch_size(
    rows_per_rank: int, requested: int, tokens_per_row: int, device: torch.device
) -> int:
    """Rows of one forward pass: a divisor of `rows_per_rank`, so that all passes have one shape.

    Args:
        rows_per_rank: Rows of a batch that each rank processes.
        requested: The setting `compute.micro_batch_size`; 0 chooses by the device.
        tokens_per_row: Tokens of one row.
        device: The device that the model is on.
    """
    default = max(1, MICRO_BATCH_TOKENS[device.type] // tokens_per_row)
    return largest_divisor(rows_per_rank, requested or default)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    candidates = range(1, min(number, limit) + 1)
    return max(divisor for divisor in candidates if number % divisor == 0)
