"""Runs shards in processes of this machine, or in this very process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any, Final

from data_contracts import GroundupError
from stages.execution.cores import cores
from stages.execution.interruption import STOP_SIGNALS
from stages.execution.shards import Executor, WorkerLost

METHOD: Final = "forkserver"  # a fork of a process with threads (Prefect's, torch's) can deadlock
AHEAD = 2  # shards in flight per worker: enough to keep it busy, few enough to bound memory


def local(workers: int = 0) -> Executor:
    """Return the executor for `workers` processes of this machine.

    Args:
        workers: The number of processes; 0 for one per core, 1 to work in this process.
    """
    count = workers or cores()
    return Processes(count) if count > 1 else InProcess()


@dataclass(frozen=True)
class InProcess:
    """An executor that runs shards in this process, each when its result is wanted."""

    @contextmanager
    def start(self, work: Callable[[Any], Any]) -> Iterator[_Here]:
        """Do what `Executor.start` does. Nothing is pickled."""
        yield _Here(work)


@dataclass(frozen=True)
class _Here:
    work: Callable[[Any], Any]
    in_flight: int = 1

    def submit(self, shard: Any) -> _Unbegun:
        return _Unbegun(self.work, shard)


@dataclass(frozen=True)
class _Unbegun:
    work: Callable[[Any], Any]
    shard: Any

    def result(self) -> Any:
        return self.work(self.shard)


@dataclass(frozen=True)
class Processes:
    """An executor that runs shards in `workers` processes, which end with this process."""

    workers: int

    @contextmanager
    def start(self, work: Callable[[Any], Any]) -> Iterator[_Pool]:
        """Do what `Executor.start` does."""
        _require_processes()
        with _starting():
            context = multiprocessing.get_context(METHOD)
            over = context.Event()
            lifeline, held = context.Pipe(duplex=False)
        with (
            lifeline,
            held,
            ProcessPoolExecutor(self.workers, context, _prepare, (over, lifeline, work)) as pool,
        ):
            try:
                yield _Pool(pool, self.workers * AHEAD)
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                held.close()  # ends the workers without waiting for what they are doing
                raise
            finally:
                over.set()


@dataclass(frozen=True)
class _Pool:
    """The processes at work."""

    pool: ProcessPoolExecutor
    in_flight: int

    def submit(self, shard: Any) -> _InPool:
        with _starting(), _lost():
            return _InPool(self.pool.submit(_begin, shard))


@dataclass(frozen=True)
class _InPool:
    """A shard that one of the processes has, or will have."""

    future: Future[Any]

    def result(self) -> Any:
        with _lost():
            return self.future.result()


@contextmanager
def _lost() -> Iterator[None]:
    """Say that a process was killed. The pool then ends as a whole."""
    try:
        yield
    except BrokenProcessPool:
        raise WorkerLost(
            "was killed, most often for want of memory",
            "run again with fewer workers or more memory; nothing was published",
        ) from None


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


# In a worker:
_over: Event  # whether the parent wants no more results
_work: Callable[[Any], Any]  # what to do with each shard


def _prepare(over: Event, lifeline: Connection, work: Callable[[Any], Any]) -> None:
    """Let this worker end with the process that started it, however that ends.

    A worker that outlived it would write into the draft of the next run. Ctrl-C and a closed
    terminal reach the whole process group. Workers ignore these signals: the process that started
    them handles them, and closes the lifeline.
    """
    global _over, _work
    _over = over
    _work = work
    for number in STOP_SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        with suppress(EOFError, OSError):
            lifeline.recv_bytes()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _begin(shard: Any) -> Any:
    """Do the work, unless another shard has failed.

    The pool hands shards out early and cannot take them back, so those not begun are skipped here.
    """
    if _over.is_set():
        raise CancelledError
    return _work(shard)
