"""Estimates how long a training will take here, from a few of its steps on random tokens.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from stages.lm import precision
from stages.lm.config import ModelConfig
from stages.lm.loss import token_loss
from stages.lm.model import LanguageModel
from stages.lm.training.batches import Batch
from stages.lm.training.config import Compute, Training
from stages.lm.training.optimizers import make_optimizers
from stages.lm.training.step import Loss, StepParts, training_step

# FLOPs of one probing step: a fraction of a second on two cores, and on a GPU.
PROBE_FLOPS = {"cpu": 1e11, "cuda": 4e13}
WARM_UP = 2  # steps that allocate memory and make plans; they are not timed
MIN_STEPS = 4  # to time
MIN_SECONDS = 0.5  # for which steps are timed
MAX_SECONDS = 4.0
# Other work, such as a server that starts, slows some steps. Once the three fastest take the same
# time, nothing slowed them.
STEADY_STEPS = 3
STEADY_RATIO = 1.05
MEAN_OVER_FASTEST = 1.1  # of the steps of a long training on a machine that does little else
# Time of a step with compiled blocks, over one without (on a CPU: decision 0017).
COMPILED_OVER_PLAIN = {"cpu": 1.0, "cuda": 0.8}
COMPILE_SECONDS = 25.0
# Seconds per token of each probed model. sft trains the model of pretrain: one probe serves both.
_seconds_per_token: dict[tuple[ModelConfig, str, Compute], float] = {}


def training_seconds(
    model: ModelConfig, training: Training, compute: Compute, steps: int, tokens_per_step: float
) -> float:
    """Estimate the seconds that a training takes here. It needs one to five seconds itself.

    A model or batch too large for that is probed with fewer layers and rows, and the time is scaled
    by the ratio of FLOPs. Held-out evaluations are not included.

    Args:
        model: Sizes of the model.
        training: How it is optimized.
        compute: Precision, threads and devices.
        steps: Optimizer steps.
        tokens_per_step: Tokens of one optimizer step, over all devices.
    """
    device = precision.device_of()
    rows, small = _probed_size(model, tokens_per_step, device.type)
    key = (small, training.optimizer, compute)
    if key not in _seconds_per_token:
        probed_seconds = _step_seconds(small, training, compute, rows)
        _seconds_per_token[key] = probed_seconds / (rows * small.context)
    per_token = _seconds_per_token[key] * model.flops_per_token() / small.flops_per_token()
    seconds = steps * tokens_per_step * per_token / compute.devices
    flops = steps * tokens_per_step * model.flops_per_token() / compute.devices
    if precision.should_compile(compute, flops, device):
        seconds = seconds * COMPILED_OVER_PLAIN[device.type] + COMPILE_SECONDS
    return seconds


def _probed_size(
    model: ModelConfig, tokens_per_step: float, device: str
) -> tuple[int, ModelConfig]:
    """Return rows and sizes of a step of at most PROBE_FLOPS, or of the smallest there is."""
    rows = max(1, round(tokens_per_step / model.context))
    row_flops = model.flops_per_token() * model.context
    rows = min(rows, max(1, int(PROBE_FLOPS[device] / row_flops)))
    layers = model.layers
    small = model
    while layers > 1 and rows * small.flops_per_token() * small.context > PROBE_FLOPS[device]:
        layers = max(1, layers // 2)
        small = model.model_copy(update={"layers": layers})
    return rows, small


def _step_seconds(model: ModelConfig, training: Training, compute: Compute, rows: int) -> float:
    """Return the seconds of an average optimizer step, estimated from the fastest of a few."""
    device = precision.device_of()
    dtype = precision.choose(compute, device).dtype
    precision.set_threads(compute)
    probed = LanguageModel(model)
    probed.initialize(0)
    probed.to(device)
    optimizers = make_optimizers(probed, training, dtype)
    parts = StepParts(
        model=probed,
        batches=_RandomTokens(model, rows),
        loss=_next_token_loss,
        rows_per_rank=rows,
        micro_batch_size=rows,
        dtype=dtype,
        device=device,
    )
    passes = training_step(parts)
    times: list[float] = []
    while not _are_enough(times[WARM_UP:]):
        started = time.perf_counter()
        passes.run(0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return MEAN_OVER_FASTEST * min(times[WARM_UP:])


class _RandomTokens:
    """One batch of random tokens."""

    def __init__(self, model: ModelConfig, rows: int):
        generator = torch.Generator().manual_seed(0)
        shape = (rows, model.context + 1)
        self._tokens_BT = torch.randint(0, model.vocab_size, shape, generator=generator)
        self.rows_per_epoch = rows

    def rows(self, step: int, first: int, count: int) -> Batch:
        tokens_BT = self._tokens_BT[first : first + count]
        return {"ids": tokens_BT[:, :-1], "labels": tokens_BT[:, 1:]}

    def documents(self, step: int) -> list[str]:
        return []


def _next_token_loss(model: LanguageModel, batch: Batch) -> Loss:
    labels_BT = batch["labels"]

    def head(hidden_BTD: Tensor, weight_VD: Tensor) -> tuple[Tensor, Tensor]:
        return token_loss(hidden_BTD, weight_VD, labels_BT)

    total, _ = model(batch["ids"], head)
    return Loss(total, weight=labels_BT.numel(), tokens=labels_BT.numel())


def _are_enough(times: Sequence[float]) -> bool:
    """Return whether these times of steps tell how long an undisturbed step takes."""
    if len(times) < MIN_STEPS or sum(times) < MIN_SECONDS:
        return False
    fastest = sorted(times)[:STEADY_STEPS]
    return fastest[-1] <= STEADY_RATIO * fastest[0] or sum(times) >= MAX_SECONDS
