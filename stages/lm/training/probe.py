"""How long a training will take on this machine, from a few steps of it on made-up tokens.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

import time

import torch

from stages.lm import precision
from stages.lm.config import Compute, ModelConfig, Training
from stages.lm.loss import token_loss
from stages.lm.model import LanguageModel
from stages.lm.training.optimizers import make_optimizers

PROBE_FLOPS = {
    "cpu": 4e10,
    "cuda": 4e13,
}  # of one probing step: a fraction of a second on two cores, and on a GPU
WARM_UP = 2  # steps that allocate memory and make plans: they do not count
LEAST_STEPS, LEAST_SECONDS = 4, 0.5  # steps to time, and how long to go on
MEAN_OVER_FASTEST = 1.1  # of a long training on a machine that does little else
COMPILED = 0.8  # time of a step with compiled blocks, as a share of that of plain ones
COMPILE_SECONDS = 25.0
# Seconds per token of what was probed: sft trains the model of pretrain, so one probe serves both.
_seconds_per_token: dict[tuple[ModelConfig, str, Compute], float] = {}


def training_seconds(
    model: ModelConfig, training: Training, compute: Compute, steps: int, tokens_per_step: float
) -> float:
    """Seconds that `steps` optimizer steps of `tokens_per_step` tokens take here, from about a second of them.

    A model or batch too large for that is probed with fewer layers and rows, and the time is scaled
    by the FLOPs of both. Held-out evaluations are not part of it.

    Args:
        model: Sizes of the model.
        training: How it is optimized.
        compute: Precision, threads and devices.
        steps: Optimizer steps.
        tokens_per_step: Tokens of one optimizer step, over all devices.
    """
    device = precision.device_of()
    rows, small = _probed_size(model, tokens_per_step, device.type)
    key = small, training.optimizer, compute
    if key not in _seconds_per_token:
        _seconds_per_token[key] = _step_seconds(small, training, compute, rows) / (
            rows * small.context
        )
    per_token = _seconds_per_token[key] * model.flops_per_token() / small.flops_per_token()
    seconds = steps * tokens_per_step * per_token / compute.devices
    flops = steps * tokens_per_step * model.flops_per_token() / compute.devices
    if precision.should_compile(compute, flops, device):
        seconds = seconds * COMPILED + COMPILE_SECONDS
    return seconds


def _probed_size(
    model: ModelConfig, tokens_per_step: float, device: str
) -> tuple[int, ModelConfig]:
    """Rows and sizes of a step that costs at most PROBE_FLOPS, or of the smallest step there is."""
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
    """Seconds of an average optimizer step, estimated from the fastest of a few.

    A run probes while its server starts, which slows some of the steps.
    """
    device = precision.device_of()
    dtype = precision.choose(compute, device).dtype
    precision.set_threads(compute)
    made = LanguageModel(model)
    made.initialize(0)
    made.to(device)
    optimizers = make_optimizers(made, training, dtype)
    generator = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(
        0, model.vocab_size, (rows, model.context + 1), generator=generator
    ).to(device)
    times: list[float] = []
    while len(times) < WARM_UP + LEAST_STEPS or sum(times[WARM_UP:]) < LEAST_SECONDS:
        started = time.perf_counter()
        with precision.autocast(dtype, device):
            labels_BT = tokens_BT[:, 1:]
            total, _ = made(
                tokens_BT[:, :-1], lambda hidden, table, y=labels_BT: token_loss(hidden, table, y)
            )
        total.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return MEAN_OVER_FASTEST * min(times[WARM_UP:])
