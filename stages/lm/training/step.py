"""The forward and backward passes of a training step: one object with one method, by layout."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from stages.lm import precision
from stages.lm.model import LanguageModel
from stages.lm.parallel import collectives, fsdp
from stages.lm.training.batches import Batch, Batches

MICRO_BATCH_TOKENS = {"cpu": 4096, "cuda": 32768}
# Python runs in one thread at a time, so more parts would wait for each other.
MAX_THREADED_PARTS = 4
MAX_EXTRA_GRADIENT_BYTES = 1 << 30  # of the parts after the first


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
Sums = dict[str, Any]  # numbers, or tensors of one number, by name


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
            self.before_micro_batch(is_last=start + parts.micro_batch_size == end)
            for name, value in self.micro_batch(step, start).items():
                sums[name] = sums.get(name, 0.0) + value
        # Only here does the host wait for the device.
        on_rank = {name: float(value) for name, value in sums.items()}
        return self._result(collectives.all_reduce(on_rank, parts.device))

    def before_micro_batch(self, is_last: bool) -> None:
        """Prepare for a micro-batch. `is_last`: the step has no other after it."""

    def gradient_factor(self) -> float:
        """Return what turns the parameters' gradients into sums over all ranks."""
        return 1.0

    def micro_batch(self, step: int, start: int) -> Sums:
        """Add the gradients of one micro-batch to the parameters, and return its sums.

        Args:
            step: Number of the step.
            start: The first of its rows.
        """
        batch = self.parts.batches.rows(step, start, self.parts.micro_batch_size)
        total, sums = self.forward(batch)
        total.backward()
        return sums

    def forward(self, batch: Batch) -> tuple[Tensor, Sums]:
        """Return what is to be minimized, and the sums of these rows."""
        parts = self.parts
        on_device: dict[str, Tensor] = {}
        for name, tensor in batch.items():
            on_device[name] = tensor.to(parts.device, non_blocking=True)
        with precision.autocast(parts.dtype, parts.device, keep_casts=False):
            loss = parts.loss(parts.model, on_device)
        sums: Sums = {
            "loss": loss.total.detach(),
            **loss.figures,
            "weight": loss.weight,
            "tokens": loss.tokens,
        }
        return loss.total, sums

    def _result(self, sums: dict[str, float]) -> StepResult:
        weight = sums.pop("weight")
        tokens = int(sums.pop("tokens"))
        if not weight:
            return StepResult(dict.fromkeys(sums, 0.0), tokens, gradient_scale=0.0)
        means = {name: value / weight for name, value in sums.items()}
        return StepResult(means, tokens, gradient_scale=self.gradient_factor() / weight)


class ThreadedStep(AccumulatedStep):
    """Parts of each micro-batch at the same time, each in a Python thread of its own, on a CPU.

    If all threads share each operation, they wait for each other at its end, hundreds of times in
    a step. In a small model, that takes as long as the computing. Here they wait once per
    micro-batch. PyTorch releases Python's lock while it computes. The gradients of the parts are
    added in the order of the rows, so the same number of threads gives the same bits.

    Each part has its own copy of the gradients. A sparse model is not run this way: it stores the
    load-balancing loss of its last forward pass in an attribute, which the parts would share.
    """

    def __init__(self, parts: StepParts):
        super().__init__(parts)
        self.count = threaded_parts(parts)
        self.threads = torch.get_num_threads()
        self._parameters = [p for p in parts.model.parameters() if p.requires_grad]
        self._others = ThreadPoolExecutor(self.count - 1, thread_name_prefix="micro-batch")
        self._shapes_seen: set[tuple[torch.Size, ...]] = set()

    def micro_batch(self, step: int, start: int) -> Sums:
        size = self.parts.micro_batch_size // self.count
        firsts = range(start, start + self.parts.micro_batch_size, size)
        batches = [self.parts.batches.rows(step, first, size) for first in firsts]
        shapes = tuple(tensor.shape for batch in batches for tensor in batch.values())
        try:
            if shapes in self._shapes_seen:
                results = self._at_the_same_time(batches)
            else:  # compiled blocks are compiled for each new shape: one part after another
                results = [self._gradients(batch) for batch in batches]
        finally:
            torch.set_num_threads(self.threads)
        self._shapes_seen.add(shapes)
        sums, gradients = results[0]
        for more_sums, more_gradients in results[1:]:
            torch._foreach_add_(gradients, more_gradients)
            for name, value in more_sums.items():
                sums[name] = sums[name] + value
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            if parameter.grad is not None:
                gradient = parameter.grad.add_(gradient)
            parameter.grad = gradient
        return sums

    def _at_the_same_time(self, batches: list[Batch]) -> list[tuple[Sums, list[Tensor]]]:
        """Return the sums and gradients of each part. The first part runs in this thread."""
        others: list[Future[tuple[Sums, list[Tensor]]]] = []
        try:
            others.extend(self._others.submit(self._gradients, batch) for batch in batches[1:])
            first = self._gradients(batches[0])
        finally:
            wait(others)  # no thread uses the model any more, whatever happened here
        return [first, *(other.result() for other in others)]

    def _gradients(self, batch: Batch) -> tuple[Sums, list[Tensor]]:
        torch.set_num_threads(self.threads // self.count)  # of this Python thread
        total, sums = self.forward(batch)
        return sums, list(torch.autograd.grad(total, self._parameters))


def threaded_parts(parts: StepParts) -> int:
    """Return how many parts of a micro-batch to run at the same time. 1: run it whole.

    All parts have as many rows and as many threads.

    Args:
        parts: What the step is made of.
    """
    if parts.device.type != "cpu" or parts.model.config.family.has_experts:
        return 1
    shared = math.gcd(torch.get_num_threads(), parts.micro_batch_size)
    gradient_bytes = 4 * parts.model.config.parameters().total
    affordable = 1 + MAX_EXTRA_GRADIENT_BYTES // gradient_bytes
    return largest_divisor(shared, min(MAX_THREADED_PARTS, affordable))


class ShardedStep(AccumulatedStep):
    """The same on several ranks, with weights and gradients sharded over them (FSDP2, HSDP)."""

    def before_micro_batch(self, is_last: bool) -> None:
        fsdp.set_is_last_micro_batch(self.parts.model, is_last)

    def gradient_factor(self) -> float:
        return fsdp.gradient_factor()


LAYOUTS: dict[str, Callable[[StepParts], TrainingStep]] = {
    "one process": AccumulatedStep,
    "threads": ThreadedStep,
    "sharded": ShardedStep,
}


def training_step(parts: StepParts) -> TrainingStep:
    """Return the forward and backward passes for the layout of this training.

    Args:
        parts: What the step is made of.
    """
    layout = "one process"
    if collectives.world_size() > 1:
        layout = "sharded"
    elif threaded_parts(parts) > 1:
        layout = "threads"
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
