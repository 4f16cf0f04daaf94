"""Steps that a signal may not cut in two, such as starting a process and recording it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from stages.execution.interruption import handled_signals


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let the block end before a signal acts. The first one that arrives meanwhile acts after it.

    Outside the main thread, which alone runs the handlers of signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)

    before = {}
    try:
        for number in handled_signals():
            before[number] = signal.getsignal(number)
            signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])
