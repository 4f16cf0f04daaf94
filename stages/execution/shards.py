"""Spreads a stage's work over workers: a function is applied to shards, wherever they run.

Results are in the order of the shards, so the output has the same bytes for any executor and any
number of workers. Which executor runs the shards is a matter of where and how, never of the result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from data_contracts import GroundupError

Shard = TypeVar("Shard")
Result = TypeVar("Result")


class Pending(Protocol):
    """A shard that was handed to the workers."""

    def result(self) -> Any:
        """Wait until the shard is done, and return its result.

        Raises:
            WorkerLost: The worker ended before it returned a result.
            Exception: What the work raised, as it raised it.
        """


class Workers(Protocol):
    """Workers that apply one function to shards.

    Attributes:
        in_flight: How many shards to hand out before the first of them has to be done: enough to
            keep every worker busy, few enough to bound memory.
    """

    @property
    def in_flight(self) -> int: ...

    def submit(self, shard: Any) -> Pending:
        """Hand out a shard, without waiting for a worker that is free.

        Raises:
            WorkerLost: The workers ended.
        """


class Executor(Protocol):
    """What runs shards: processes of this machine, or a cluster.

    What is sent. The work and each shard are pickled. They hold settings, rows, and keys of the
    store: a `Draft` to write to, an `ArtifactKey` to read from. They hold no path of the machine
    that sends them, and no open file. A worker has groundup, reaches the store, and sees nothing
    else of the sender. The work is the same for all shards, so an executor sends it once per
    worker. It may hold megabytes.

    How often. Each shard runs once. A shard that was begun may have written files, so an executor
    does not repeat it on its own.

    Order. Shards may run and end in any order. `map_shards` puts results back in order.

    Backpressure. `map_shards` draws a shard when fewer than `Workers.in_flight` are out. So memory
    holds that many shards and results, however many there are in all and however slow the reader
    of the results is.

    Errors. What the work raises reaches the reader as it was raised. A worker that is killed is
    `WorkerLost`. The error of the first shard, in order, is the one that is raised.

    Cancel. Leaving the context of `start` ends the work: a shard that waits is never begun. After
    an error, shards that were begun may end. After an interrupt (KeyboardInterrupt, SystemExit, or
    a reader that closes the results) they are stopped at once. When the context has been left, no
    worker writes to the store any more. Workers also end when the sender dies.

    Progress. A worker reports nothing but its result. The stage counts results as they arrive.
    """

    def start(self, work: Callable[[Any], Any]) -> AbstractContextManager[Workers]:
        """Start workers that apply `work`, a function of a module or a `partial` of one.

        Raises:
            GroundupError: Workers cannot start.
        """


class WorkerLost(Exception):  # noqa: N818  not always an error of its own
    """A worker ended before it returned the result of a shard.

    Attributes:
        why: What is known of the reason.
        fix: What to do.
    """

    def __init__(self, why: str, fix: str):
        super().__init__(why, fix)
        self.why = why
        self.fix = fix


def map_shards(
    work: Callable[[Shard], Result], shards: Iterable[Shard], executor: Executor
) -> Iterator[Result]:
    """Apply `work` to `shards` and yield the results in order.

    Args:
        work: What to do; see `Executor` for what it may hold.
        shards: What to do it with. Few of them are drawn in advance.
        executor: Who does it.

    Raises:
        GroundupError: Workers cannot start, or one dies.
        Exception: Whatever `work` raises. A note says in which shard.
    """
    with executor.start(work) as workers:
        waiting: deque[Pending] = deque()
        done = 0
        for shard in shards:
            waiting.append(_submitted(workers, shard, done))
            if len(waiting) == workers.in_flight:
                yield _result(waiting.popleft(), done)
                done += 1
        while waiting:
            yield _result(waiting.popleft(), done)
            done += 1


def _submitted(workers: Workers, shard: Any, done: int) -> Pending:
    try:
        return workers.submit(shard)
    except WorkerLost as lost:
        raise _explained(lost, done) from None


def _result(pending: Pending, number: int) -> Any:
    """Return the result of a shard; `number` is for messages."""
    try:
        return pending.result()
    except WorkerLost as lost:
        raise _explained(lost, number) from None
    except GroundupError:
        raise
    except Exception as error:
        error.add_note(f"This happened in shard {number}.")
        raise


def _explained(lost: WorkerLost, number: int) -> GroundupError:
    # A pool of processes ends as a whole, so the shard is known only approximately.
    return GroundupError(f"a worker process, near shard {number}", lost.why, lost.fix)
