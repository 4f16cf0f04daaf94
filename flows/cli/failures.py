"""How a command that fails says so: one line for people, JSON for programs, and the exit status that shells expect."""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import typer

from data_contracts.credentials import masked
from data_contracts.errors import ConfigError, GroundupError, Interrupted
from data_contracts.foreign_text import shown
from flows.cli import console, signals, tables
from flows.cli.console import errors

FAILED = 2
# typer has its own copy of click since 0.20 and shows its exceptions by this one alone
UsageError: type[Any] = typer.BadParameter.__mro__[1]
GO_ON = "run the same command again to go on"
_ADVICE = {
    errno.EACCES: "let this user have it: chmod u+rwX {}, or chown it",
    errno.EPERM: "let this user have it: chmod u+rwX {}, or chown it",
    errno.EROFS: "mount it for writing, or give another place with GROUNDUP_HOME or GROUNDUP_STORE",
    errno.ENOSPC: "make room, then run the same command again",
    errno.EDQUOT: "make room, then run the same command again",
    errno.EMFILE: "raise the limit: ulimit -n 4096",
    errno.EIO: "check the disk: dmesg",
}


def status_of(command: Callable[[], object], as_json: bool) -> int:
    """Run a command and give its exit status: 0, its own, 2 after a failure, 128+n after signal n.

    as_json: failures go to standard output as {"error": …}, for the program that reads there; people read them on standard error.
    A fault of groundup itself keeps its traceback.
    """
    _open_streams()
    console.accept_any_text()
    with signals.caught() as asked:
        try:
            ended = command()
            if ended == 128 + signals.INTERRUPTED:  # typer's answer to Ctrl-C, and to Stopped
                raise KeyboardInterrupt
            sys.stdout.flush()
        except BaseException as error:
            ended = _told(error, asked, as_json)
        if asked:
            signals.end_children()
        _leave_nothing_to_flush()
        return ended if isinstance(ended, int) else 0


def _open_streams() -> None:
    """A shell can start a program with streams closed (`>&-`). A file opened later would then be taken for the terminal."""
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(nowhere)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  for as long as the process lives


def _told(error: BaseException, asked: signals.Asked, as_json: bool) -> int:
    if isinstance(error, SystemExit) and not asked:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, BrokenPipeError) and not asked and _nobody_reads():
        return 1  # whoever read the output has enough
    if asked or isinstance(error, Interrupted | KeyboardInterrupt):
        return _interrupted(error, asked, as_json)
    if isinstance(error, UsageError):
        return _misused(error, as_json)
    failure = _as_failure(error)
    if failure is None:
        if as_json:
            _write_json(
                type(error).__name__, "groundup", f"{error}", "report this, with the traceback"
            )
        _show_traceback(error)
        return 1
    _say(failure, as_json)
    return FAILED


def _interrupted(error: BaseException, asked: signals.Asked, as_json: bool) -> int:
    stop = (
        error
        if isinstance(error, Interrupted)
        else Interrupted("the command", "was stopped", GO_ON)
    )
    if as_json:
        _write_json("Interrupted", stop.what, stop.why, stop.fix)
    told = f"{stop.what} {stop.why}; {stop.fix}" if stop is error else stop.fix
    with suppress(OSError):  # the terminal is gone
        errors.print(f"interrupted; {told}", markup=False)
    return 128 + asked.number


def _misused(error: Any, as_json: bool) -> int:
    """A command line that names no command, an unknown option, a value that an option does not take."""
    command = error.ctx.command_path if error.ctx else "groundup"
    why = shown(masked(error.format_message()))
    if as_json:
        _write_json("UsageError", command, why, f"{command} --help")
    with suppress(OSError):
        errors.print("[bold red]error[/] ", end="")
        errors.print(f"{command}: {why}", markup=False)
        errors.print("  to see how it is used: ", end="", style="bold")
        errors.print(f"{command} --help", markup=False)
    return int(error.exit_code)


def _as_failure(error: BaseException) -> GroundupError | None:
    """The failure that an exception means for a person; None if it is a fault of groundup itself."""
    if isinstance(error, GroundupError):
        return error
    if isinstance(error, MemoryError):
        why = "there is not enough for this"
        return GroundupError(
            "memory", why, "close other programs, or use fewer workers, then run it again"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return _of_the_system(error)
    if isinstance(error, typer.Abort):  # the end of the input where an answer was wanted
        return ConfigError("standard input", "ended before the answer", "run it in a terminal")
    return None


def _of_the_system(error: OSError) -> GroundupError:
    why = error.strerror or str(error)
    if error.filename is None and not (_flushes(sys.stdout) and _takes_a_line(sys.stdout)):
        advice = "send the output elsewhere, or make room there"
        return GroundupError("standard output", f"cannot be written: {why}", advice)
    if isinstance(error, BrokenPipeError) and error.filename is None:
        advice = "see what it said above, then run the same command again"
        return GroundupError(
            "a process that does a part of the work",
            f"ended or did not start: {why[0].lower() + why[1:]}",
            advice,
        )
    what = str(error.filename) if error.filename is not None else "the system"
    advice = _ADVICE.get(error.errno or 0, "repair that, then run the same command again")
    return GroundupError(what, why[0].lower() + why[1:], advice.format(what))


def _nobody_reads() -> bool:
    """Whether standard output or error leads to nobody: a pipe can also break between this process and one that helps it."""
    looked_at = select.poll()
    for number in (1, 2):
        looked_at.register(number, 0)
    return any(state & (select.POLLERR | select.POLLHUP) for _, state in looked_at.poll(0))


def _flushes(stream: Any) -> bool:
    """What could not be written may be waiting still, so that another try shows whether the stream is at fault."""
    try:
        stream.flush()
    except OSError:
        return False
    return True


def _takes_a_line(stream: Any) -> bool:
    """Nothing waits in a stream without buffer (PYTHONUNBUFFERED): an empty line shows it."""
    try:
        print(file=stream, flush=True)
    except OSError:
        return False
    return True


def _say(failure: GroundupError, as_json: bool) -> None:
    if as_json:
        _write_json(type(failure).__name__, failure.what, failure.why, failure.fix)
    with suppress(OSError):
        errors.print("[bold red]error[/] ", end="")
        errors.print(f"{failure.what}: {failure.why}", markup=False)
        errors.print("  to repair: ", end="", style="bold")
        errors.print(failure.fix, markup=False)


def _write_json(kind: str, what: str, why: str, fix: str) -> None:
    with suppress(OSError):
        tables.as_json({"error": {"kind": kind, "what": what, "why": why, "fix": fix}})
        sys.stdout.flush()


def _show_traceback(error: BaseException) -> None:
    """Safe to print like all else: an error of a library may quote a page, or an address with its password."""
    import traceback

    with suppress(OSError):
        print(shown(masked("".join(traceback.format_exception(error)))), end="", file=sys.stderr)


def _leave_nothing_to_flush() -> None:
    """The interpreter would try once more at its end, and print an exception of its own."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        if not _flushes(stream):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
