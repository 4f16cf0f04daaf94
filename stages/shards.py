"""The one seam through which a stage's work is spread: a function over shards, on any executor.

Results come in the order of the shards whatever the number of workers, so the same bytes come out.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from data_contracts import GroundupError

Shard = TypeVar("Shard")
Result = TypeVar("Result")

AHEAD = 2  # shards in flight per worker: enough to keep it busy, few enough to bound memory


def map_shards(
    work: Callable[[Shard], Result], shards: Iterable[Shard], workers: int = 0, executor: Executor | None = None
) -> Iterator[Result]:
    """`work` over `shards`, results in order. workers 0: one per core; 1: in this process.

    `executor` may be any concurrent.futures executor, e.g. those of prefect-ray and prefect-dask; default: processes.
    Raises GroundupError if a worker dies, naming the shard it was at.
    """
    workers = workers or cores()
    if executor is not None:
        yield from _ordered(executor, work, shards, workers)
    elif workers == 1:
        yield from map(work, shards)
    else:
        # forkserver: a fork of a process with threads (Prefect's, torch's) can deadlock
        with ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver")) as pool:
            yield from _ordered(pool, work, shards, workers)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ordered(executor: Executor, work: Callable[[Shard], Result], shards: Iterable[Shard], workers: int) -> Iterator[Result]:
    rest = enumerate(shards)
    waiting = [(n, executor.submit(work, shard)) for n, shard in islice(rest, workers * AHEAD)]
    while waiting:
        number, future = waiting.pop(0)
        try:
            result = future.result()
        except BrokenProcessPool:
            raise GroundupError(
                f"worker process at shard {number}",
                "was killed, most often for want of memory",
                "run again with fewer workers or more memory; nothing was published",
            ) from None
        waiting += [(n, executor.submit(work, shard)) for n, shard in islice(rest, 1)]
        yield result
