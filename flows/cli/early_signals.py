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


def catch() -> None:
    """Let the signals that end a process end this one in a line, until signals.py takes over."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, end)


def end(number: int, frame: FrameType | None) -> None:
    """End this process with the status that shells expect."""
    os.write(2, GO_ON)
    os._exit(128 + number)
