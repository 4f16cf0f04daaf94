"""Optimizers, learning-rate schedules, and the rule by which a bad step is skipped."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

import torch
from torch import Tensor, nn

from stages.lm.training.config import Training
from stages.lm.training.muon import Muon

NORMS_KEPT = 50  # gradient norms of the last good steps, which show what is usual
MIN_NORMS = 10  # before there are that many, no gradient norm counts as a spike


def make_optimizers(
    model: nn.Module, training: Training, dtype: torch.dtype = torch.float32
) -> list[torch.optim.Optimizer]:
    """AdamW for all parameters, or Muon for the matrices of the blocks and AdamW for the others.

    AdamW always takes the embedding, the output table, the router and the norms. Norms do not
    decay.

    Args:
        model: The model to train.
        training: Rates and decays.
        dtype: Number format of Muon's matrix products; see stages.lm.precision.
    """
    matrices: list[nn.Parameter] = []
    tables: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        is_router = name.endswith("mlp.gate.weight")
        is_in_block = ".layers." in name
        if weight.ndim < 2:
            vectors.append(weight)
        elif training.optimizer == "muon" and is_in_block and not is_router:
            matrices.append(weight)
        else:
            tables.append(weight)
    adamw = _adamw(tables, vectors, training)
    if not matrices:
        return [adamw]
    muon = Muon(
        [{"params": matrices, "peak": training.muon_learning_rate}],
        lr=training.muon_learning_rate,
        weight_decay=training.weight_decay,
        dtype=dtype,
    )
    return [adamw, muon]


def _adamw(
    tables: list[nn.Parameter], vectors: list[nn.Parameter], training: Training
) -> torch.optim.AdamW:
    """AdamW with its state made now, so that a resume checkpoint can be read into it."""
    peak = training.learning_rate
    groups = [
        {"params": tables, "weight_decay": training.weight_decay, "peak": peak},
        {"params": vectors, "weight_decay": 0.0, "peak": peak},
    ]
    adamw = torch.optim.AdamW(groups, lr=peak, betas=(0.9, training.beta2), eps=1e-10, fused=True)
    for weight in [*tables, *vectors]:
        adamw.state[weight] = {
            "step": torch.zeros((), device=weight.device),
            "exp_avg": torch.zeros_like(weight),
            "exp_avg_sq": torch.zeros_like(weight),
        }
    return adamw


def optimizer_tensors(
    model: nn.Module, optimizers: list[torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """Return all optimizer state as "<parameter>/<entry>" → tensor.

    Args:
        model: The model.
        optimizers: Its optimizers.
    """
    tensors: dict[str, Tensor] = {}
    for name, weight in model.named_parameters():
        for optimizer in optimizers:
            for entry, tensor in optimizer.state.get(weight, {}).items():
                tensors[f"{name}/{entry}"] = tensor
    return tensors


def schedule(training: Training, step: int, steps: int) -> float:
    """Return the factor of the peak learning rate at `step` of `steps`.

    It rises from 1/w to 1 over w warm-up steps, then follows the schedule and would reach 0 one
    step after the last. WSD: Hu et al. 2024 (MiniCPM), with linear decay. Cosine: Loshchilov and
    Hutter 2017.

    Args:
        training: The setting `lr_schedule`.
        step: Number of the step, from 0.
        steps: Steps of the training.

    Returns:
        0 to 1.
    """
    rates = training.lr_schedule
    warmup = round(rates.warmup_share * steps)
    if step < warmup:
        return (step + 1) / warmup
    if rates.kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    decay = min(round(rates.decay_share * steps), steps - warmup)
    return min(1.0, (steps - step) / decay) if decay else 1.0


def set_learning_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set the learning rate of every group to `factor` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor


def gradient_norm(model: nn.Module) -> Tensor:
    """Return the Euclidean norm of all gradients, over all ranks if they are sharded.

    Args:
        model: The model, after the backward pass.
    """
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients, foreach=None)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


class SpikeGuard:
    """The rule by which a step is bad.

    A step is bad if its loss or gradient is not finite, or if its gradient norm is more than
    `factor` times the median of the last good steps.

    Args:
        factor: See above.
        norms: Gradient norms of good steps, from a resume checkpoint.
    """

    def __init__(self, factor: float, norms: list[float] | None = None):
        self.factor = factor
        self.norms: deque[float] = deque(norms or [], maxlen=NORMS_KEPT)

    def is_bad(self, loss: float, norm: float) -> bool:
        """Return whether to skip the step. The norm of a good step is remembered.

        Args:
            loss: Loss of the step.
            norm: Gradient norm of the step.
        """
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return True
        if len(self.norms) >= MIN_NORMS and norm > self.factor * median(self.norms):
            return True
        self.norms.append(norm)
        return False
