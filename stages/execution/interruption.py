"""Signals that ask a process to end, and how a long stage grants that at its next safe point."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = tuple(
    number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))
)


def heeded() -> list[signal.Signals]:
    """The ending signals that this process does not ignore: `nohup` ignores SIGHUP, and it means it."""
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def stop_requested(then: Callable[[], object] | None = None) -> Iterator[Callable[[], bool]]:
    """Gives a function that turns true once the process is asked to stop. A second signal acts as it would have without this.

    then: called once, in the main thread, as soon as the first signal comes.
    Outside the main thread signals cannot be caught; the function then stays false and the signal acts at once, which is
    safe too: unpublished work stays in the draft.
    """
    wished = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield wished.is_set
        return
    before = {number: signal.getsignal(number) for number in heeded()}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> None:
        wished.set()
        restore()
        if then:
            then()

    for number in before:
        signal.signal(number, stop)
    try:
        yield wished.is_set
    finally:
        restore()
