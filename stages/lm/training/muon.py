"""Muon: momentum, made orthogonal (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

The update of a weight matrix is its momentum with all singular values set to about 1, so that no
direction of the matrix is learned faster than another. Newton-Schulz iterations find it with
matrix products alone. torch.optim.Muon computes these products in bfloat16 on every machine. This
one uses the format that the machine has natively, and batches matrices of one shape.

Shapes: n matrices of one shape, R rows, C columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

# Coefficients (a, b, c) of the odd polynomials a x + b x^3 + c x^5, one per iteration: the optimal
# ones for singular values of 1e-3 to 1, made a little safer (Amsel et al. 2025, arXiv 2505.16932).
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
# Values of the matrices that are updated together: 256 MB in float32. An update takes a few times
# as much.
BATCH_VALUES = 1 << 26
SAFETY = 1.02  # keeps singular values below 1 after rounding; larger ones would diverge


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized, with decoupled weight decay. Takes matrices only.

    State per matrix: `momentum_buffer`, in float32 and of the matrix's shape; nothing else. The
    update of a matrix depends on that matrix alone. A sharded matrix (DTensor) is gathered for its
    update, and each rank keeps its shard of the result.

    Args:
        groups: Parameter groups as torch.optim takes them.
        lr: Learning rate, scaled by sqrt(R / C) for matrices that have more rows than columns.
        weight_decay: Share of the weight, times lr, that a step subtracts.
        momentum: How much of the momentum a step keeps.
        dtype: Format of the matrix products: see stages.lm.precision.
    """

    def __init__(
        self,
        groups: Iterable[Any],
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype
        for group in self.param_groups:
            for weight in group["params"]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient.

        Args:
            closure: Unused; it is part of the signature in torch.optim.
        """
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            weights.sort(key=_shape)  # stable: keeps the order of the group
            for shape, same_shape in groupby(weights, key=_shape):
                matrices = list(same_shape)
                count = max(1, BATCH_VALUES // (shape[0] * shape[1]))
                for start in range(0, len(matrices), count):
                    self._update(matrices[start : start + count], group)

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        nesterov = torch._foreach_lerp(gradients, buffers, group["momentum"])
        whole = [one.full_tensor() if isinstance(one, DTensor) else one for one in nesterov]
        updates_nRC = orthogonalize(torch.stack(whole), self.dtype)
        rows, columns = updates_nRC.shape[1:]
        rate = group["lr"] * max(1.0, rows / columns) ** 0.5
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        shards = [_shard(one, like) for one, like in zip(updates_nRC, weights, strict=True)]
        torch._foreach_add_(weights, shards, alpha=-rate)


def _shape(weight: Tensor) -> tuple[int, ...]:
    return tuple(weight.shape)


def orthogonalize(matrices_nRC: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the nearest matrices whose singular values are about 1 (0.9 to 1.1, or very small).

    Args:
        matrices_nRC: Batch of matrices.
        dtype: Format of the matrix products.

    Returns:
        A batch of the same shape in float32.
    """
    is_tall = matrices_nRC.shape[1] > matrices_nRC.shape[2]
    x = matrices_nRC.mT if is_tall else matrices_nRC  # fewer rows make smaller products
    norm_n11 = torch.linalg.matrix_norm(x, keepdim=True)
    x = (x / (norm_n11 * SAFETY + 1e-12)).to(dtype)
    for a, b, c in POLAR_EXPRESS:
        gram = torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    x = x.float()
    return x.mT if is_tall else x


def update_flops(shapes: Iterable[tuple[int, int]]) -> int:
    """Return the FLOPs of one step's matrix products, for matrices of these shapes.

    Args:
        shapes: Rows and columns of each matrix.
    """
    total = 0
    for shape in shapes:
        small, large = min(shape), max(shape)
        total += len(POLAR_EXPRESS) * (4 * small * small * large + 2 * small**3)
    return total


def _shard(whole: Tensor, like: Tensor) -> Tensor:
    """Return this rank's shard of `whole`, which all ranks have, placed like `like`."""
    if not isinstance(like, DTensor):
        return whole
    mesh = like.device_mesh
    same = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return same.redistribute(mesh, like.placements)
