"""Attention with a mask is correct and does not keep all scores in memory.

Shapes: B rows, T tokens, S keys, H query heads, K key-value heads, N width of a head.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stages.lm.attention import MAX_MANUAL_TOKENS, attend, visibility_bias
from tests.gpu.machine import CheckError, Figures, Machine

HALF_BFLOAT16 = 2.0**-9  # most relative error of rounding to bfloat16, which has 8 bits of mantissa
FLOAT32_BOUND = 2.0**-16
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NAMES = ("output", "dq", "dk", "dv")


def masked_attention(machine: Machine) -> Figures:
    """Compare `attend` and its gradients with explicit attention in float32.

    Bounds of the relative error (Euclidean norm of the difference over that of the reference):

    - bfloat16, output: a score of size s, rounded, is off by up to s 2^-9, which changes its weight
      by as large a share; the weight and the result are rounded too: (s + 2) 2^-9, with the largest
      score for s. The gradients go through the weights and their derivative, and twice as far.
    - float32: its rounding is 2^-24, a sum of 1,200 terms in another order costs some 35 of these,
      and kernels may put each factor together from three TF32 numbers (2^-21): 2^-16 for all.

    A lost mask, head or scale gives errors of a tenth at least.
    """
    figures: Figures = {}
    lengths = (192, MAX_MANUAL_TOKENS + 128)
    heads = ((2, 2), (4, 2)) if machine.small else ((16, 16), (16, 4))
    masks = ("causal", "segments", "window")
    for (name, dtype), T, (H, K), mask in product(DTYPES.items(), lengths, heads, masks):
        if machine.small and T > MAX_MANUAL_TOKENS and mask == "window":
            continue  # seconds, and the same kernel as with segments
        errors, largest = _errors(machine, dtype, H, K, T, mask)
        step = HALF_BFLOAT16 * (largest + 2)
        bounds = (step, *[2 * step] * 3) if dtype is torch.bfloat16 else (FLOAT32_BOUND,) * 4
        for part, error, bound in zip(NAMES, errors, bounds, strict=True):
            worst = f"{name}_{'output' if part == 'output' else 'gradients'}_error"
            figures[worst] = max(figures.get(worst, 0.0), error)
            if not error <= bound:
                case = f"{part} in {name}, {H} heads on {K}, {T} tokens, {mask}"
                raise CheckError(f"{case}: off by {error:.2g}, the bound is {bound:.2g}", figures)
    return figures


def _errors(
    machine: Machine,
    dtype: torch.dtype,
    H: int,
    K: int,
    T: int,
    mask: str,
) -> tuple[list[float], float]:
    """Relative errors of the output and of three gradients, and the largest score."""
    q, k, v, dy = random_inputs(machine, dtype, 1, H, K, T, 64)
    bias = bias_of(machine, T, mask)
    mine = None if mask == "causal" else bias.to(dtype)
    found = _with_gradients(lambda q, k, v: attend(q, k, v, mine), (q, k, v), dy)
    exact = tuple(x.float() for x in (q, k, v))
    wanted = _with_gradients(lambda q, k, v: written_out(q, k, v, bias), exact, dy.float())
    errors = [_relative(one.float(), other) for one, other in zip(found, wanted, strict=True)]
    scores = _scores(exact[0], exact[1])
    return errors, float(scores.masked_fill(bias[:, None] < 0, 0).abs().max())


def _relative(some: Tensor, others: Tensor) -> float:
    return float((some - others).norm() / others.norm())


def random_inputs(
    machine: Machine,
    dtype: torch.dtype,
    B: int,
    H: int,
    K: int,
    T: int,
    N: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values and a gradient of the output; the scores deviate by about 1."""
    generator = torch.Generator().manual_seed(T * H + K)
    shapes = ((B, H, T, N), (B, K, T, N), (B, K, T, N), (B, H, T, N))
    made = [torch.randn(shape, generator=generator) for shape in shapes]
    q, k, v, dy = (one.to(machine.device, dtype) for one in made)
    return q, k, v, dy


def bias_of(machine: Machine, T: int, mask: str) -> Tensor:
    """[1, T, T] bias in float32, as the model makes it: causal, with segments or with a window."""
    positions = torch.arange(T, device=machine.device)[None]
    segments = (positions * 5 // T).square() if mask == "segments" else None  # five segments
    return visibility_bias(positions, T, T // 3 if mask == "window" else None, segments)


def written_out(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention by its definition."""
    weights = (_scores(q, k) + bias[:, None]).softmax(-1)
    return weights @ v.repeat_interleave(q.shape[1] // v.shape[1], 1)


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).mT / q.shape[-1] ** 0.5


def _with_gradients(function: Any, inputs: tuple[Tensor, ...], dy: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    y = function(*leaves)
    return y.detach(), *torch.autograd.grad(y, leaves, dy)


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest result of any operation, in `bytes`."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, Tensor):
                self.bytes = max(self.bytes, one.untyped_storage().nbytes())
        return made


def attention_memory(machine: Machine) -> Figures:
    """One attention layer with grouped queries, forward and backward, never holds all scores.

    The math kernel, which PyTorch falls back to where no other fits, writes them out several times:
    B H T S values each. Here one whole layer may take half of a single copy of them, and no
    operation may make as much, with a bias and without, in both formats.
    """
    B, H, K, T, N = 1, *machine.either((8, 2, MAX_MANUAL_TOKENS + 128, 16), (32, 8, 2048, 64))
    figures: Figures = {}
    too_much: list[str] = []
    for (name, dtype), mask in product(DTYPES.items(), ("segments", "causal")):
        scores = B * H * T * T * dtype.itemsize
        inputs = random_inputs(machine, dtype, B, H, K, T, N)
        bias = None if mask == "causal" else bias_of(machine, T, mask).to(dtype)
        layer = partial(attend, bias_BTS=bias)
        with machine.peak_memory() as before:
            pass
        with machine.peak_memory() as memory:
            _with_gradients(layer, inputs[:3], inputs[3])
        with LargestTensor() as largest:
            _with_gradients(layer, inputs[:3], inputs[3])
        used = largest.bytes
        if memory["peak_gb"] is not None:
            used = max(used, int(1e9 * (memory["peak_gb"] - before["peak_gb"])))
        figures[f"{name}_{mask}_mb"] = round(used / 1e6, 1)
        figures[f"{name}_scores_mb"] = round(scores / 1e6, 1)
        if used > scores / 2:
            too_much.append(f"{name} {mask} takes {used / 1e6:.0f} MB")
    if too_much:
        raise CheckError("; ".join(too_much) + ": all scores are written out", figures)
    return figures
