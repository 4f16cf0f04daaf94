"""How a command ends on request: Ctrl-C, `kill`, or a terminal that is closed.

The first signal raises `Stopped` in the main thread, so that every `finally` runs. A stage that
trains or crawls catches it and stops at its next resume checkpoint. If the process has not ended
after GRACE_S, it gets the signal again. After END_S it ends with all its children, whatever the
main thread is doing. The first signal decides the exit status: a shell that closes, or a system
that shuts down, sends several in a row.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from data_contracts.environment import seconds_named
from data_contracts.errors import ConfigError, GroundupError
from flows.cli import early_signals
from stages.execution.interruption import handled_signals

# Seconds for a stage to reach its next resume checkpoint. Longer steps need more. A scheduler's own
# time limit says how much there is.
GRACE = "GROUNDUP_GRACE_S"
GRACE_S, MAX_GRACE_S = 6.0, 86_400.0
with suppress(ConfigError):  # `require_grace` says so where an error can be reported
    GRACE_S = seconds_named(GRACE, GRACE_S, MAX_GRACE_S)
END_S = GRACE_S + 3

INTERRUPTED = int(signal.SIGINT)

_previous_handlers: dict[signal.Signals, Any] = {}  # while signals are caught


class Stopped(KeyboardInterrupt):
    """The process was asked to end. Code that cleans up after Ctrl-C cleans up after this, too.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class StopRequest:
    """The first signal that asked this process to end, if one did.

    Attributes:
        answered: Whether the command has ended, so that there is nothing left to stop.
        over: Set when its outcome has been reported.
    """

    def __init__(self) -> None:
        self._first = 0
        self._handled = 0
        self._is_first_known = threading.Event()
        self.answered = False
        self.over = threading.Event()

    def note_handled(self, number: int) -> None:
        """Record a signal that a handler got. Python handles two of them in any order."""
        self._handled = self._handled or number

    @property
    def was_handled(self) -> bool:
        """Whether a handler got a signal. The thread that watches may know it before."""
        return bool(self._handled)

    def note_first(self, number: int) -> None:
        """Record the signal that came first."""
        self._first = number
        self._is_first_known.set()

    def __bool__(self) -> bool:
        return bool(self._handled or self._first)

    @property
    def number(self) -> int:
        """The signal; SIGINT if none is known, as Ctrl-C reaches Python in other ways, too."""
        self._is_first_known.wait(1)  # the thread that notes it may not have run yet
        return self._first or self._handled or INTERRUPTED


@contextmanager
def caught() -> Iterator[StopRequest]:
    """Let the signals that end a process raise Stopped inside.

    Signals that the process ignores stay ignored. If one has come, the others are ignored
    afterwards: the process only has to end, and the first one has decided how.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def stop(number: int, frame: FrameType | None) -> None:
        is_hangup = number == getattr(signal, "SIGHUP", None)
        if request.answered or (request.was_handled and is_hangup):
            return  # kernel and shell both send SIGHUP when a terminal closes
        request.note_handled(number)
        raise Stopped(number)

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for number in handled_signals():
        handler = signal.signal(number, stop)
        is_early = handler is early_signals.end
        _previous_handlers[number] = early_signals.before[number] if is_early else handler
    # Libraries replace handlers, and handlers run only when the main thread leaves its C code. The
    # pipe gets every signal at once.
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reading, request), name="signals", daemon=True)
    watcher.start()
    try:
        yield request
    finally:
        request.answered = True
        request.over.set()
        # The interpreter takes up to a second to end. It gives handlers up at once, but what is
        # ignored stays ignored.
        _restore_handlers(wakeup, is_ending=bool(request))
        os.close(writing)


def _restore_handlers(wakeup: int = -1, is_ending: bool = False) -> None:
    """Let signals do what they did before. A forked child does so, too: its signals are its own.

    Args:
        wakeup: The descriptor that got every signal before.
        is_ending: Whether this process is ending because of a signal; others are ignored then.
    """
    if _previous_handlers:
        signal.set_wakeup_fd(wakeup)
    while _previous_handlers:
        number, handler = _previous_handlers.popitem()
        signal.signal(number, signal.SIG_IGN if is_ending else handler)


os.register_at_fork(after_in_child=_restore_handlers)


def _watch(reading: int, request: StopRequest) -> None:
    """Wait for a signal that ends the process, and make sure that the process does end."""
    number = _next_ending_signal(reading)
    if number is not None:
        request.note_first(number)
        if not request.over.wait(GRACE_S):
            os.kill(os.getpid(), _again(number))
            if not request.over.wait(END_S - GRACE_S):
                _end_at_once(number)
        # Signals are ignored from now on, so nobody else ends an interpreter that waits for a
        # thread.
        time.sleep(GRACE_S)
        os._exit(128 + number)
    os.close(reading)


def _again(number: int) -> int:
    """Return the signal to send again. Not SIGHUP: a second one is ignored (terminals send two)."""
    return int(signal.SIGTERM) if number == getattr(signal, "SIGHUP", None) else number


def _next_ending_signal(reading: int) -> int | None:
    """Return the next signal that ends the process; None once the pipe is closed."""
    endings = set(map(int, _previous_handlers))
    while True:
        received = os.read(reading, 1)
        if not received:
            return None
        if received[0] in endings:  # others arrive, too, such as the alarm of a time limit
            return received[0]


def require_grace() -> None:
    """Check that GROUNDUP_GRACE_S is a number of seconds.

    Raises:
        ConfigError: It is not.
    """
    seconds_named(GRACE, GRACE_S, MAX_GRACE_S)


def end_children() -> None:
    """Kill what this process has started, and what that has started, unless it ends by itself.

    A server ends when nobody uses it any more, and others may use it. Python's own trackers of
    shared memory end with this process, and they clean up after it.
    """
    import psutil

    from flows.home import current_home
    from flows.prefect_host.processes import recorded

    left_alone: set[int] = set()
    with suppress(GroundupError, OSError):  # a home that is no path has recorded nothing
        left_alone = recorded(current_home())
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            is_of_python = any("from multiprocessing." in part for part in child.cmdline())
            if child.pid not in left_alone and not is_of_python:
                child.kill()


def _end_at_once(number: int) -> None:
    try:
        end_children()
        with suppress(OSError):  # the terminal may be gone
            os.write(2, b"interrupted; run the same command again to go on\n")
    finally:
        os._exit(128 + number)
