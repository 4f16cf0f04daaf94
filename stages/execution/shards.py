"""Spreads a stage's work over worker processes: a function is applied to shards.

Results are in the order of the shards, so the output has the same bytes for any number of workers.
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
from stages.execution.interruption import STOP_SIGNALS

Shard = TypeVar("Shard")
Result = TypeVar("Result")

METHOD: Final = "forkserver"  # a fork of a process with threads (Prefect's, torch's) can deadlock
AHEAD = 2  # shards in flight per worker: enough to keep it busy, few enough to bound memory


def map_shards(
    work: Callable[[Shard], Result], shards: Iterable[Shard], workers: int = 0
) -> Iterator[Result]:
    """Apply `work` to `shards` and yield the results in order. Workers end with this process.

    Args:
        work: A picklable function.
        shards: Picklable values; read at most AHEAD per worker in advance.
        workers: The number of processes; 0 for one per core, 1 to work in this process.

    Raises:
        GroundupError: Workers cannot start, or one dies.
        Exception: Whatever `work` raises.
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
            held.close()  # ends the workers without waiting for what they are doing
            raise
        finally:
            over.set()


@cache
def _require_processes() -> None:
    """Start a process that does nothing, to fail with one clear message.

    Later, locks and queues would fail, too, each with a message of another form.

    Raises:
        GroundupError: The system cannot start processes.
    """
    with _starting(), warnings.catch_warnings():
        # Python's resource tracker, which cannot start either, warns.
        warnings.simplefilter("ignore", UserWarning)
        trial = multiprocessing.get_context(METHOD).Process(target=_nothing)
        trial.start()
        trial.join()
    if trial.exitcode:
        raise _not_started(f"one that should do nothing ended with exit status {trial.exitcode}")


def _nothing() -> None:
    """Do nothing: the target of the trial process."""


@contextmanager
def _starting() -> Iterator[None]:
    """Explain errors of starting a process, which name only the pipes or files that failed."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        where = f": {error.filename}" if error.filename else ""
        raise _not_started(f"{why[:1].lower()}{why[1:]}{where}") from error
    except EOFError as error:
        raise _not_started("the process that starts them ended at once") from error


def _not_started(why: str) -> GroundupError:
    return GroundupError(
        "the worker processes",
        f"cannot start: {why}",
        "do the work in one process: --set workers=1 (for a whole run --set STAGE.workers=1); "
        "nothing was published",
    )


def cores() -> int:
    """Return the number of cores that this process may use.

    These are the cores of its affinity, or fewer if its control group has a CPU quota (containers,
    systemd).
    """
    allowed = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    return max(1, math.ceil(min(allowed, cpu_quota())))


def cpu_quota(
    memberships: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> float:
    """Return the smallest CPU quota of this process's control group (v2) and its ancestors.

    Args:
        memberships: The file that lists the control groups of the process.
        root: The folder of the control groups.

    Returns:
        The quota in cores; infinity if there is none.
    """
    limits = [math.inf]
    for group in _control_groups(memberships):
        folder = root / group.strip("/")
        for ancestor in (folder, *folder.parents):
            file = ancestor / "cpu.max"
            if file.is_relative_to(root) and file.is_file():
                quota, period = file.read_text().split()
                limits.append(math.inf if quota == "max" else int(quota) / int(period))
    return min(limits)


def _control_groups(memberships: Path) -> list[str]:
    """Return the version 2 control groups that a file like /proc/self/cgroup lists."""
    if not memberships.is_file():
        return []
    prefix = "0::"
    lines = memberships.read_text().splitlines()
    return [line.removeprefix(prefix) for line in lines if line.startswith(f"{prefix}/")]


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
    except BrokenProcessPool:
        # All futures fail in the same way, so the shard is known only approximately.
        raise GroundupError(
            f"a worker process, near shard {done}",
            "was killed, most often for want of memory",
            "run again with fewer workers or more memory; nothing was published",
        ) from None


_over: Event  # in a worker: whether the parent wants no more results


def _prepare(over: Event, lifeline: Connection) -> None:
    """Let this worker end with the process that started it, however that ends.

    A worker that outlived it would write into the draft of the next run. Ctrl-C and a closed
    terminal reach the whole process group. Workers ignore these signals: the process that started
    them handles them, and closes the lifeline.
    """
    global _over
    _over = over
    for number in STOP_SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        with suppress(EOFError, OSError):
            lifeline.recv_bytes()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _begin(work: Callable[[Shard], Result], shard: Shard) -> Result:
    """Do the work, unless another shard has failed.

    The pool hands shards out early and cannot take them back, so those not begun are skipped here.
    """
    if _over.is_set():
        raise CancelledError
    return work(shard)
