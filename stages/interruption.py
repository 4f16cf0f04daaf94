"""SIGTERM and SIGINT as a wish that long stages grant at their next safe point."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Gives a function that turns true once the process is asked to stop. A second signal acts as it would have without this.

    Outside the main thread signals cannot be caught; the function then stays false and the signal acts at once, which is
    safe too: unpublished work stays in the draft.
    """
    wished = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield wished.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def wish(number: int, frame: FrameType | None) -> None:
        wished.set()
        restore()

    for number in before:
        signal.signal(number, wish)
    try:
        yield wished.is_set
    finally:
        restore()
