"""The one seam through which a stage's work is spread: a function over shards, in worker processes.

Results come in the order of the shards whatever the number of workers, so the same bytes come out.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import cache, partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Final, TypeVar

from data_contracts import GroundupError
from stages.execution.interruption import ENDING

Shard = TypeVar("Shard")
Result = TypeVar("Result")

METHOD: Final = "forkserver"  # a fork of a process with threads (Prefect's, torch's) can deadlock
AHEAD = 2  # shards in flight per worker: enough to keep it busy, few enough to bound memory


def map_shards(
    work: Callable[[Shard], Result], shards: Iterable[Shard], workers: int = 0
) -> Iterator[Result]:
    """`work` over `shards`, results in order. workers 0: one per core; 1: in this process. Workers end with this process.

    Raises what `work` raises, and GroundupError if workers cannot start or one dies.
    """
    workers = workers or cores()
    if workers == 1:
        yield from map(work, shards)
        return
    _require_processes()
    with _starting():
        context = multiprocessing.get_context(METHOD)
        over = context.Event()
        lifeline, held = context.Pipe(duplex=False)
    with lifeline, held, ProcessPoolExecutor(workers, context, _prepare, (over, lifeline)) as pool:
        try:
            yield from _ordered(pool, partial(_begin, work), shards, workers * AHEAD)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            held.close()  # what the workers are doing is not waited for
            raise
        finally:
            over.set()


@cache
def _require_processes() -> None:
    """Start one that does nothing, before there are locks and queues, which would complain each in its own way.

    Raises:
        GroundupError: The system starts none.
    """
    with _starting(), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # of Python's own helper, which cannot start either
        trial = multiprocessing.get_context(METHOD).Process(target=_nothing)
        trial.start()
        trial.join()
    if trial.exitcode:
        raise _not_started(f"one that should do nothing ended with exit status {trial.exitcode}")


def _nothing() -> None:
    """What the first process does."""


@contextmanager
def _starting() -> Iterator[None]:
    """Says what failed: to start a process takes pipes, files and sockets, and their errors name none of it."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        where = f": {error.filename}" if error.filename else ""
        raise _not_started(f"{why[:1].lower()}{why[1:]}{where}") from error
    except EOFError as error:
        raise _not_started("the process that starts them ended at once") from error


def _not_started(why: str) -> GroundupError:
    fix = "do the work in one process: --set workers=1 (for a whole run --set STAGE.workers=1); nothing was published"
    return GroundupError("the worker processes", f"cannot start: {why}", fix)


def cores() -> int:
    """Cores that this process may use: those of its affinity, or fewer if its control group has a CPU quota (containers, systemd)."""
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, math.ceil(min(allowed, cpu_quota())))


def cpu_quota(
    memberships: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> float:
    """The least cpu.max, in cores, of this process's control group (v2) and of those above it; infinite if there is none."""
    own = (
        [line[3:] for line in memberships.read_text().splitlines() if line.startswith("0::/")]
        if memberships.is_file()
        else []
    )
    limits = [math.inf]
    for group in own:
        place = root / group.strip("/")
        for file in (folder / "cpu.max" for folder in (place, *place.parents)):
            if file.is_relative_to(root) and file.is_file():
                quota, period = file.read_text().split()
                limits.append(math.inf if quota == "max" else int(quota) / int(period))
    return min(limits)


def _ordered(
    pool: Executor, work: Callable[[Shard], Result], shards: Iterable[Shard], ahead: int
) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    done = 0
    try:
        for shard in shards:
            with _starting():
                submitted = pool.submit(work, shard)
            waiting.append(submitted)
            if len(waiting) == ahead:
                yield waiting.popleft().result()
                done += 1
        while waiting:
            yield waiting.popleft().result()
            done += 1
    except BrokenProcessPool:  # every future then fails alike, so which shard it was is not known
        raise GroundupError(
            f"a worker process, near shard {done}",
            "was killed, most often for want of memory",
            "run again with fewer workers or more memory; nothing was published",
        ) from None


_over: Event  # in a worker: has the parent stopped wanting results?


def _prepare(over: Event, lifeline: Connection) -> None:
    """Let this worker die with the process that asked for it, however that ends: left alone it would write into the next run's draft.

    Ctrl-C and a closed terminal reach the whole process group. Those are for the process that asked: it lets go of the lifeline.
    """
    global _over
    _over = over
    for number in ENDING:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        with suppress(EOFError, OSError):
            lifeline.recv_bytes()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _begin(work: Callable[[Shard], Result], shard: Shard) -> Result:
    """The pool hands shards out early and cannot take them back: those not begun when another one failed are passed over here."""
    if _over.is_set():
        raise CancelledError
    return work(shard)
