"""How a command ends when it is asked to: by Ctrl-C, by `kill`, by a terminal that is closed.

The first signal raises Stopped in the main thread, so that every `finally` runs; a stage that trains or crawls catches it and
stops at its next safe point. What does not heed the first signal gets it again after GRACE_S, and after END_S the process ends
with all its children, whatever the main thread is doing then.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from flows.cli import early_signals
from stages.execution.interruption import handled_signals

GRACE_S = float(os.environ.get("GROUNDUP_GRACE_S") or 6)
"""Seconds for a stage to reach its safe point. Longer steps need more: a scheduler's own time limit says how much there is."""
END_S = GRACE_S + 3

INTERRUPTED = int(signal.SIGINT)

_handlers: dict[signal.Signals, Any] = {}  # what was there before, while signals are caught


class Stopped(KeyboardInterrupt):
    """The process was asked to end, by signal `number`. Whoever cleans up after Ctrl-C does so after this."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Asked:
    """The first signal that asked this process to end, if one did."""

    def __init__(self) -> None:
        self._number = 0
        self._known = threading.Event()
        self.over = threading.Event()

    def note(self, number: int) -> None:
        self._number = self._number or number
        self._known.set()

    def __bool__(self) -> bool:
        return self._known.is_set()

    @property
    def number(self) -> int:
        """SIGINT if none is known: the terminal's Ctrl-C reaches Python in other ways, too."""
        self._known.wait(1)  # the thread that notes it may not have run yet
        return self._number or INTERRUPTED


@contextmanager
def caught() -> Iterator[Asked]:
    """While this is entered, the signals that end a process raise Stopped. Those that the process ignores stay ignored."""
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if asked and number == getattr(signal, "SIGHUP", None):
            return  # kernel and shell both send it when a terminal closes
        asked.note(number)
        raise Stopped(number)

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for number in handled_signals():
        handler = signal.signal(number, stop)
        is_early = handler is early_signals.end
        _handlers[number] = early_signals.before[number] if is_early else handler
    # libraries replace handlers, and those run only when the main thread leaves its C code; the pipe hears every signal at once
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading, asked), name="signals", daemon=True).start()
    try:
        yield asked
    finally:
        asked.over.set()
        _release(wakeup)
        os.close(writing)


def _release(wakeup: int = -1) -> None:
    """Let signals do what they did before; in a forked child, too, whose signals are not its parent's."""
    if _handlers:
        signal.set_wakeup_fd(wakeup)
    while _handlers:
        number, handler = _handlers.popitem()
        signal.signal(number, handler)


os.register_at_fork(after_in_child=_release)


def _watch(reading: int, asked: Asked) -> None:
    endings = {int(number) for number in _handlers}
    while number := os.read(reading, 1):
        if number[0] in endings:  # others wake it up, too: the alarm of a time limit, for instance
            break
    if number:
        asked.note(number[0])
        if not asked.over.wait(GRACE_S):
            os.kill(os.getpid(), _again(number[0]))
            if not asked.over.wait(END_S - GRACE_S):
                _end(number[0])
    os.close(reading)


def _again(number: int) -> int:
    """A second SIGHUP is ignored, because a terminal that closes sends two."""
    return int(signal.SIGTERM) if number == getattr(signal, "SIGHUP", None) else number


def end_children() -> None:
    """Kill what this process has started and what that has, but for what ends by itself.

    A server ends when nobody uses it any more, and others may. Python's own trackers of shared memory end with this process, and
    they clean up after it.
    """
    import psutil

    from flows.home import home
    from flows.prefect_host.processes import recorded

    left_alone = recorded(home())
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            own_of_python = any("from multiprocessing." in part for part in child.cmdline())
            if child.pid not in left_alone and not own_of_python:
                child.kill()


def _end(number: int) -> None:
    end_children()
    with suppress(OSError):  # the terminal may be gone
        os.write(2, b"interrupted; run the same command again to go on\n")
    os._exit(128 + number)
