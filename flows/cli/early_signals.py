"""What a signal does while the command line is being imported: it ends the command and says so.

Nothing has been started then that would have to be stopped. See signals.py for later. This module
imports nothing that takes time.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

GO_ON = b"interrupted; run the same command again to go on\n"

before: dict[signal.Signals, Any] = {}
_reading, _writing = -1, -1  # a pipe that gets every signal in the order in which they come


def catch() -> None:
    """Let the signals that end a process end this one in a line, until signals.py takes over."""
    global _reading, _writing
    _reading, _writing = os.pipe()
    os.set_blocking(_reading, False)
    os.set_blocking(_writing, False)
    signal.set_wakeup_fd(_writing, warn_on_full_buffer=False)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, end)


def end(number: int, frame: FrameType | None) -> None:
    """End this process with the status that shells expect, which the first signal decides.

    Two signals may come while a module is read. Python handles them in the order of their numbers.
    """
    try:
        came = [one for one in os.read(_reading, 64) if one in before]
    except OSError:
        came = []
    os.write(2, GO_ON)
    os._exit(128 + (came[0] if came else number))
