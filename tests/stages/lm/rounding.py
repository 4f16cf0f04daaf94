"""Bounds how far rounding alone may move a training.

A gradient is a sum over the tokens of a batch. Another micro-batch, number of threads or
instruction set adds in another order. For n terms the relative change is about u sqrt(n), where u
is half the format's epsilon (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section
2.8). AdamW turns gradients smaller than that noise into full steps of either sign. Muon multiplies
the smallest directions by the slope of its polynomials at 0. So rounding changes a step by at most
that share of its length, and the changes of all steps add up.
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
    """How far two trainings from `start` are apart, by weight.

    It is the norm of their difference, as a share of the norm of what the first has changed.
    """
    assert some.keys() == other.keys() == start.keys()
    shares = {}
    for name in some:
        difference = (some[name] - other[name]).norm()
        shares[name] = float(difference / (some[name] - start[name]).norm())
    return shares
