"""Optimizers, learning-rate schedules, and the rule that skips bad steps."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

import torch
from torch import Tensor, nn

from stages.lm.config import Training
from stages.lm.training.muon import Muon

REMEMBERED = 50  # good steps whose gradient norms tell what is usual
ENOUGH = 10  # of them, before anything counts as a spike


def make_optimizers(
    model: nn.Module, training: Training, dtype: torch.dtype = torch.float32
) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the matrices of the blocks and AdamW for the rest.

    Embedding, output table, router and norms are AdamW's in either case; norms do not decay.

    Args:
        model: What is trained.
        training: Rates and decays.
        dtype: Format of Muon's matrix products, see stages.lm.precision.
    """
    matrices, tables, vectors = [], [], []
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            vectors.append(weight)
        elif (
            training.optimizer == "muon"
            and ".layers." in name
            and not name.endswith("mlp.gate.weight")
        ):
            matrices.append(weight)
        else:
            tables.append(weight)
    groups = [
        {"params": tables, "weight_decay": training.weight_decay, "peak": training.learning_rate},
        {"params": vectors, "weight_decay": 0.0, "peak": training.learning_rate},
    ]
    adamw = torch.optim.AdamW(
        groups, lr=training.learning_rate, betas=(0.9, training.beta2), eps=1e-10, fused=True
    )
    for weight in [*tables, *vectors]:
        adamw.state[weight] = {
            "step": torch.zeros((), device=weight.device), "exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)
        }  # fmt: skip
    if not matrices:
        return [adamw]
    muon = Muon(
        [{"params": matrices, "peak": training.matrix_learning_rate}],
        lr=training.matrix_learning_rate,
        weight_decay=training.weight_decay,
        dtype=dtype,
    )
    return [adamw, muon]


def optimizer_tensors(
    model: nn.Module, optimizers: list[torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """All optimizer state, "<parameter>/<entry>" → tensor. It is there from the start, so a safe point can be read into it."""
    return {
        f"{name}/{entry}": tensor
        for name, weight in model.named_parameters()
        for optimizer in optimizers
        for entry, tensor in optimizer.state.get(weight, {}).items()
    }


def schedule(training: Training, step: int, steps: int) -> float:
    """Share of the peak learning rate at `step` of `steps`: warm-up from 1/w to 1, then the schedule, reaching 0 after the last step.

    WSD: Hu et al. 2024 (MiniCPM), linear decay. Cosine: Loshchilov and Hutter 2017.
    """
    warmup = round(training.warmup_share * steps)
    if step < warmup:
        return (step + 1) / warmup
    if training.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    decay = min(round(training.decay_share * steps), steps - warmup)
    return min(1.0, (steps - step) / decay) if decay else 1.0


def set_learning_rate(optimizers: list[torch.optim.Optimizer], share: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share


def gradient_norm(model: nn.Module) -> Tensor:
    """Euclidean norm of all gradients; over all ranks if they are sharded."""
    norm = torch.nn.utils.get_total_norm(
        [weight.grad for weight in model.parameters() if weight.grad is not None], foreach=None
    )
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


class SpikeGuard:
    """Says of each step whether to skip it: its loss or gradient is not finite, or its gradient norm is `factor` times the usual."""

    def __init__(self, factor: float, seen: list[float] | None = None):
        self.factor = factor
        self.seen: deque[float] = deque(seen or [], maxlen=REMEMBERED)

    def bad(self, loss: float, norm: float) -> bool:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return True
        if len(self.seen) >= ENOUGH and norm > self.factor * median(self.seen):
            return True
        self.seen.append(norm)
        return False
