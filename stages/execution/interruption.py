"""Signals that ask a process to end, and how a long stage stops at its next resume checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


def handled_signals() -> list[signal.Signals]:
    """Return the STOP_SIGNALS that this process does not ignore. `nohup` makes it ignore SIGHUP."""
    return [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def stop_requested(then: Callable[[], object] | None = None) -> Iterator[Callable[[], bool]]:
    """Provide a function that returns whether the process was asked to stop.

    A second signal acts as if this context manager were not there. Outside the main thread signals
    cannot be caught: the function then always returns False, and a signal acts at once. That is
    safe, too, because unpublished work stays in the draft.

    Args:
        then: Called once, in the main thread, as soon as the first signal arrives.
    """
    is_requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield is_requested.is_set
        return
    before = {number: signal.getsignal(number) for number in handled_signals()}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> None:
        is_requested.set()
        restore()
        if then:
            then()

    for number in before:
        signal.signal(number, stop)
    try:
        yield is_requested.is_set
    finally:
        restore()
