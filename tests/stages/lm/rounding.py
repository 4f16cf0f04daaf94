"""How far rounding alone may move a training, from the format, the number of sums and the optimizer.

A gradient is a sum over the tokens of a batch; another micro-batch, number of threads or instruction
set adds in another order. Of n terms that changes a relative share of about u sqrt(n), u being half
the format's epsilon (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 2.8).
AdamW turns what is small beside the noise into a full step either way, Muon multiplies the smallest
directions by the slope of its polynomials at 0. So a step moves the weights by at most that much of
what it moves them at all, and the steps add up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from stages.lm.training.muon import POLAR_EXPRESS

SLOPE = math.prod(a for a, _, _ in POLAR_EXPRESS)


def gradient_share(sums: int, dtype: torch.dtype = torch.float32) -> float:
    """The relative difference of a gradient of `sums` terms that are added in another order."""
    return torch.finfo(dtype).eps / 2 * math.sqrt(sums)


def weight_share(steps: int, sums: int, dtype: torch.dtype = torch.float32) -> float:
    """The relative difference of what `steps` steps of Muon and AdamW have changed."""
    return steps * SLOPE * gradient_share(sums, dtype)


def apart(
    some: Mapping[str, Tensor], other: Mapping[str, Tensor], start: Mapping[str, Tensor]
) -> dict[str, float]:
    """How far two trainings from `start` are apart, by weight, as a share of what the first has changed."""
    assert some.keys() == other.keys() == start.keys()
    return {
        name: float((some[name] - other[name]).norm() / (some[name] - start[name]).norm())
        for name in some
    }
