"""Bounds for the regular expressions of a task file, which may come from anybody.

A pattern of eight characters can take years on a short answer. So the patterns of files that may
not run code are searched for in a child process, within limits. The time limit is that of the whole
task: a limit of some seconds for each of a thousand answers would not be a bound.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from lm_eval.api import metrics
from lm_eval.filters import extraction

from data_contracts import InputError
from data_contracts.foreign_text import brief
from stages.execution.bounded_child import BoundedChild

CHILD = Path(__file__).with_name("patterns_child.py")
SECONDS = 10  # of processor time, for all texts of a task together
SECONDS_EACH = 0.002  # more for each text; a usual search takes a hundredth of it
BYTES = 512 << 20
FIX = (
    "correct the pattern, leave the file out of evaluate.tasks, or, if you trust it, "
    "set evaluate.allow_code=true"
)
USERS = (extraction, metrics)  # the modules of lm-eval that apply patterns of a task file


@contextmanager
def bounded(task: str) -> Iterator[None]:
    """Bound what lm-eval does with the patterns of `task`.

    Raises:
        InputError: A pattern cannot be used, or takes too much. It names the task and the pattern.
    """
    patterns = _Patterns(task)
    before = [module.re for module in USERS]
    for module in USERS:
        module.re = patterns  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, original in zip(USERS, before, strict=True):
            module.re = original
        patterns.end()


class _Patterns:
    """A stand-in for the module re, as far as lm-eval's filters and metrics use it."""

    escape = staticmethod(re.escape)

    def __init__(self, task: str):
        self._task = task
        self._texts = 0
        self._child: BoundedChild | None = None

    def compile(self, pattern: str, flags: int = 0) -> _Compiled:
        self._ask(pattern, flags, None)
        return _Compiled(self, pattern, flags)

    def findall(self, pattern: str, text: str, flags: int = 0) -> list[Any]:
        found = self._ask(pattern, flags, _text(text))
        return [tuple(one) if isinstance(one, list) else one for one in found]

    def sub(self, pattern: str, new: str, text: str) -> str:
        return self._ask(pattern, 0, _text(text), new)

    def end(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def _ask(self, pattern: str, flags: int, text: str | None, new: str | None = None) -> Any:
        if not isinstance(pattern, str):
            self._refuse(pattern, "is not text")
        if text is not None:
            self._texts += 1
        if self._child is None:
            self._child = _start()
        request = {"pattern": pattern, "flags": int(flags), "text": text, "new": new}
        reply = self._child.ask(request)
        if reply is None:
            self._refuse(pattern, self._how_it_ended(self._child))
        if "error" in reply:
            self._refuse(pattern, reply["error"])
        return reply["found"]

    def _how_it_ended(self, child: BoundedChild) -> str:
        status = child.wait()
        self.end()
        if status == -signal.SIGXCPU:
            seconds = SECONDS + self._texts * SECONDS_EACH
            return f"takes too long: {self._texts:,} texts took more than {seconds:.0f} seconds"
        return f"takes more memory than it may have, or crashes (status {status})"

    def _refuse(self, pattern: object, why: str) -> NoReturn:
        raise InputError(f"lm-eval task {self._task!r}", f"its pattern {brief(pattern)} {why}", FIX)


class _Compiled:
    """A stand-in for a compiled pattern."""

    def __init__(self, patterns: _Patterns, pattern: str, flags: int):
        self._patterns, self.pattern, self.flags = patterns, pattern, flags

    def findall(self, text: str) -> list[Any]:
        return self._patterns.findall(self.pattern, text, self.flags)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TypeError("expected string or bytes-like object")  # what re raises, and lm-eval handles


def _start() -> BoundedChild:
    limits = {"seconds": SECONDS, "seconds_each": SECONDS_EACH, "bytes": BYTES}
    return BoundedChild(CHILD, limits, environment={"LANG": "C.UTF-8"})
