"""Regular expressions of a task file may be anybody's, and one of eight characters can take years on a short answer.

So those of files that may run no code are searched for in a child process, within limits. The time is that of the
whole task: a thousand answers of some seconds each would be no bound.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from lm_eval.api import metrics
from lm_eval.filters import extraction

from data_contracts import InputError
from data_contracts.foreign_text import brief

CHILD = Path(__file__).with_name("patterns_child.py")
SECONDS = 10  # of processor time, for all texts of a task together
SECONDS_EACH = 0.002  # and so much more for each text; a usual search takes a hundredth of it
BYTES = 512 << 20
FIX = "correct the pattern, leave the file out of evaluate.tasks, or, if you trust it, set evaluate.allow_code=true"
USERS = (extraction, metrics)  # modules of lm-eval that apply what a task file says


@contextmanager
def bounded(task: str) -> Iterator[None]:
    """Inside, what lm-eval does with the patterns of `task` ends, or is an InputError that names it and the pattern."""
    patterns = _Patterns(task)
    before = [module.re for module in USERS]
    for module in USERS:
        module.re = patterns  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, own in zip(USERS, before, strict=True):
            module.re = own
        patterns.end()


class _Patterns:
    """Stands in for the module re, as far as lm-eval's filters and metrics use it."""

    escape = staticmethod(re.escape)

    def __init__(self, task: str):
        self._task, self._texts = task, 0
        self._process: subprocess.Popen[bytes] | None = None

    def compile(self, pattern: str, flags: int = 0) -> _Compiled:
        self._ask(pattern, flags, None)
        return _Compiled(self, pattern, flags)

    def findall(self, pattern: str, text: str, flags: int = 0) -> list[Any]:
        found = self._ask(pattern, flags, _text(text))
        return [tuple(one) if isinstance(one, list) else one for one in found]

    def sub(self, pattern: str, new: str, text: str) -> str:
        return self._ask(pattern, 0, _text(text), new)

    def end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _ask(self, pattern: str, flags: int, text: str | None, new: str | None = None) -> Any:
        if not isinstance(pattern, str):
            self._refuse(pattern, "is no text")
        asked = {"pattern": pattern, "flags": int(flags), "text": text, "new": new}
        self._texts += text is not None
        try:
            line = self._exchange(json.dumps(asked).encode() + b"\n")
        except BaseException:  # half a reply is left in the pipe
            self.end()
            raise
        if not line.endswith(b"\n"):
            self._refuse(pattern, self._how_it_ended())
        reply = json.loads(line)
        if "error" in reply:
            self._refuse(pattern, reply["error"])
        return reply["found"]

    def _exchange(self, question: bytes) -> bytes:
        """One line of reply; less, without its end, if the process ended."""
        process = self._process = self._process or _started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(question)
            process.stdin.flush()
        except BrokenPipeError:
            return b""
        return process.stdout.readline()

    def _how_it_ended(self) -> str:
        assert self._process is not None
        status = self._process.wait()
        self.end()
        if status == -signal.SIGXCPU:
            return f"takes too long: {self._texts:,} texts took more than {SECONDS + self._texts * SECONDS_EACH:.0f} seconds"
        return f"takes more memory than it may have, or crashes (status {status})"

    def _refuse(self, pattern: object, why: str) -> NoReturn:
        raise InputError(f"lm-eval task {self._task!r}", f"its pattern {brief(pattern)} {why}", FIX)


class _Compiled:
    def __init__(self, patterns: _Patterns, pattern: str, flags: int):
        self._patterns, self.pattern, self.flags = patterns, pattern, flags

    def findall(self, text: str) -> list[Any]:
        return self._patterns.findall(self.pattern, text, self.flags)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TypeError("expected string or bytes-like object")  # lm-eval knows this error of re's


def _started() -> subprocess.Popen[bytes]:
    limits = {"seconds": SECONDS, "seconds_each": SECONDS_EACH, "bytes": BYTES}
    return subprocess.Popen(
        [sys.executable, "-P", "-s", "-B", str(CHILD), json.dumps(limits)],
        env={"LANG": "C.UTF-8"},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
