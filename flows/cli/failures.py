"""How a command reports its failure: a line for people, JSON for programs, and an exit status."""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from data_contracts.credentials import masked
from data_contracts.errors import ConfigError, GroundupError, Interrupted
from data_contracts.foreign_text import shown
from data_contracts.store import repair
from flows.cli import console, signals, tables
from flows.cli.console import errors

FAILED = 2
# Since 0.20 typer has its own copy of click, in which this class has no public name.
UsageError: type[Any] = typer.BadParameter.__mro__[1]
GO_ON = "run the same command again to go on"
_NO_ACCESS = "give this user access: chmod u+rwX {}, or chown it"
_NO_SPACE = "free some space, then run the same command again"
_ADVICE = {
    errno.EACCES: _NO_ACCESS,
    errno.EPERM: _NO_ACCESS,
    errno.EROFS: "mount it for writing, or set GROUNDUP_HOME or GROUNDUP_STORE to another folder",
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EMFILE: "raise the limit: ulimit -n 4096",
    errno.EIO: "check the disk: dmesg",
}


class _BrokenPipe(Exception):  # noqa: N818  carries an error
    """A BrokenPipeError that passes typer."""

    def __init__(self, error: BrokenPipeError):
        super().__init__(error)
        self.error = error


class CommandGroup(TyperGroup):
    """A group of commands whose broken pipes reach `status_of`.

    typer would end the program with status 1 and no message, whichever pipe it was.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _BrokenPipe(error) from error


def status_of(command: Callable[[], object], as_json: bool) -> int:
    """Run a command, and report its failure if it fails.

    People read failures on standard error. A fault of groundup itself keeps its traceback.

    Args:
        command: The command.
        as_json: Whether failures also go to standard output, as {"error": …}, for programs.

    Returns:
        The exit status: 0, the command's own, 2 after a failure, or 128+n after signal n.
    """
    _open_streams()
    console.accept_any_text()
    with signals.caught() as request:
        try:
            status = _outcome(command, request, as_json)
        except signals.Stopped as error:  # a second signal, before the first was answered
            request.answered = True
            status = _report(error, request, as_json)
        if request:
            signals.end_children()
        _discard_unwritten()
        return status if isinstance(status, int) else 0


def _outcome(command: Callable[[], object], request: signals.StopRequest, as_json: bool) -> object:
    """Run a command, and return the status that it gives or that reports its failure."""
    try:
        signals.require_grace()
        status = command()
        if status == 128 + signals.INTERRUPTED:  # typer's answer to Ctrl-C, and to Stopped
            raise KeyboardInterrupt
        sys.stdout.flush()
        request.answered = True
        return status
    except BaseException as error:
        request.answered = True
        cause = error.error if isinstance(error, _BrokenPipe) else error
        return _report(cause, request, as_json)


def _open_streams() -> None:
    """Open the standard streams that the shell has closed (`>&-`).

    A file that is opened later would otherwise be taken for the terminal.
    """
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            break
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  until the process ends
            setattr(sys, name, stream)


def _report(error: BaseException, request: signals.StopRequest, as_json: bool) -> int:
    """Print what happened. Returns the exit status."""
    if isinstance(error, SystemExit) and not request:
        if isinstance(error.code, int):
            return error.code
        return int(error.code is not None)
    if isinstance(error, BrokenPipeError) and not request and _nobody_reads():
        return 1  # the reader of the output has enough
    if request or isinstance(error, Interrupted | KeyboardInterrupt):
        return _report_interruption(error, request, as_json)
    if isinstance(error, UsageError):
        return _report_misuse(error, as_json)
    failure = _as_failure(error)
    if failure:
        _report_failure(failure, as_json)
        return FAILED
    if as_json:
        fix = "report this, with the traceback"
        _write_json(type(error).__name__, "groundup", f"{error}", fix)
    _print_traceback(error)
    return 1


def _report_interruption(error: BaseException, request: signals.StopRequest, as_json: bool) -> int:
    if isinstance(error, Interrupted):
        stop = error
        message = f"{stop.what} {stop.why}; {stop.fix}"
    else:
        stop = Interrupted("the command", "was stopped", GO_ON)
        message = GO_ON
    if as_json:
        _write_json("Interrupted", stop.what, stop.why, stop.fix)
    with suppress(OSError):  # the terminal is gone
        errors.print(f"interrupted; {message}", markup=False)
    return 128 + request.number


def _report_misuse(error: Any, as_json: bool) -> int:
    """Report an unknown command or option, or a value that an option does not take."""
    command = error.ctx.command_path if error.ctx else "groundup"
    why = shown(masked(error.format_message()))
    if as_json:
        _write_json("UsageError", command, why, f"{command} --help")
    with suppress(OSError):
        errors.print("[bold red]error[/] ", end="")
        errors.print(f"{command}: {why}", markup=False)
        errors.print("  see its usage: ", end="", style="bold")
        errors.print(f"{command} --help", markup=False)
    return int(error.exit_code)


def _report_failure(failure: GroundupError, as_json: bool) -> None:
    if as_json:
        _write_json(type(failure).__name__, failure.what, failure.why, failure.fix)
    with suppress(OSError):
        errors.print("[bold red]error[/] ", end="")
        errors.print(f"{failure.what}: {failure.why}", markup=False)
        errors.print("  to repair: ", end="", style="bold")
        errors.print(failure.fix, markup=False)


def _as_failure(error: BaseException) -> GroundupError | None:
    """Return the failure that an exception means to people; None for a fault of groundup itself."""
    if isinstance(error, GroundupError):
        return error
    if isinstance(error, MemoryError):
        fix = "close other programs, or use fewer workers, then run it again"
        return GroundupError("memory", "there is not enough for this", fix)
    if isinstance(error, OSError) and error.errno is not None:
        return _failure_of_system(error)
    if isinstance(error, typer.Abort):  # the input ended where an answer was needed
        return ConfigError("standard input", "ended before the answer", "run it in a terminal")
    return None


def _failure_of_system(error: OSError) -> GroundupError:
    why = error.strerror or str(error)
    sentence = why[0].lower() + why[1:]
    if error.filename is not None:
        advice = _ADVICE.get(error.errno or 0, "repair that, then run the same command again")
        what = str(error.filename)
        return GroundupError(what, sentence, advice.format(repair.quoted(Path(what))))
    if not (_can_flush(sys.stdout) and _can_write(sys.stdout)):
        advice = "send the output elsewhere, or free some space there"
        return GroundupError("standard output", f"cannot be written: {why}", advice)
    if isinstance(error, BrokenPipeError):
        advice = "see what it printed above, then run the same command again"
        return GroundupError(
            "a process that does a part of the work",
            f"ended or did not start: {sentence}",
            advice,
        )
    advice = _ADVICE.get(error.errno or 0, "repair that, then run the same command again")
    return GroundupError("the system", sentence, advice.format("the system"))


def _nobody_reads() -> bool:
    """Return whether the reader of standard output or standard error is gone.

    A pipe between this process and one that helps it can break as well.
    """
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    return any(state & (select.POLLERR | select.POLLHUP) for _, state in poll.poll(0))


def _can_flush(stream: Any) -> bool:
    """Return whether the stream takes what waits because it could not be written before."""
    try:
        stream.flush()
    except OSError:
        return False
    return True


def _can_write(stream: Any) -> bool:
    """Return whether the stream takes an empty line.

    Without a buffer (PYTHONUNBUFFERED) nothing waits.
    """
    try:
        print(file=stream, flush=True)
    except OSError:
        return False
    return True


def _write_json(kind: str, what: str, why: str, fix: str) -> None:
    with suppress(OSError):
        tables.as_json({"error": {"kind": kind, "what": what, "why": why, "fix": fix}})
        sys.stdout.flush()


def _print_traceback(error: BaseException) -> None:
    """Print a traceback that is safe: it may quote a page, or an address with its password."""
    import traceback

    with suppress(OSError):
        text = "".join(traceback.format_exception(error))
        print(shown(masked(text)), end="", file=sys.stderr)


def _discard_unwritten() -> None:
    """Discard output that cannot be written.

    The interpreter would try once more at its end, and print an exception of its own.
    """
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        if not _can_flush(stream):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)
