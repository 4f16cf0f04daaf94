"""Exchanges between ranks.

Each function also works in a single process, where it returns at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


def world_size() -> int:
    """Return the number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this rank; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main_process() -> bool:
    """Return whether this is rank 0, which alone writes and reports."""
    return rank() == 0


def all_reduce(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Sum each value over all ranks.

    Args:
        values: The same keys in the same order on every rank.
        device: Where the process group exchanges tensors.
    """
    if world_size() == 1:
        return dict(values)
    total = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return dict(zip(values, total.tolist(), strict=True))


def all_gather(value: T) -> list[T]:
    """Return the value of every rank, in the order of ranks.

    Args:
        value: This rank's value, which must be possible to pickle.
    """
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


def broadcast(compute: Callable[[], T]) -> T:
    """Return on all ranks what `compute` returns on rank 0. Only rank 0 calls it.

    Args:
        compute: Makes the value, which must be possible to pickle.
    """
    values = [compute() if is_main_process() else None]
    if world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]  # type: ignore[return-value]


def barrier() -> None:
    """Wait until every rank has called this function."""
    if world_size() > 1:
        dist.barrier()


@contextmanager
def main_process_first() -> Iterator[None]:
    """Let rank 0 run the body before the others, for example to fill a cache that they then use.

    If the body fails on rank 0, the others never run it: rank 0 ends, and torchrun ends them.
    """
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()
