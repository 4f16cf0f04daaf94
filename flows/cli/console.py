"""What a person sees in the terminal while stages run: one line each, with rate and time left."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.rule import Rule
from rich.segment import Segment
from rich.text import Text

from data_contracts.credentials import masked
from data_contracts.foreign_text import line, shown
from stages.report import Report

if TYPE_CHECKING:
    from data_contracts import Artifact

UNBOUNDED = 100_000  # columns of output that is no terminal's: programs read lines, and so do people who copy a path


@dataclass(frozen=True)
class _Shown:
    """Something to print, with every control in its text shown; what rich itself sends to the terminal stays as it is."""

    printed: ConsoleRenderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.printed, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)


class _ShowForeignText(RenderHook):
    """All that a console prints goes through here: whatever was printed, a page or a name can steer no terminal."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Shown(one) for one in renderables]


def _console(to_errors: bool) -> Console:
    """A console that takes text for text: no emoji codes, no colours in numbers, no controls.

    A line that is too long is left to the terminal, which breaks it for the eye alone: what is copied stays whole.
    """
    width = _width(sys.stderr if to_errors else sys.stdout)
    console = Console(stderr=to_errors, highlight=False, emoji=False, soft_wrap=True, width=width)
    console.push_render_hook(_ShowForeignText())
    return console


def _width(stream: TextIO | None) -> int | None:
    """What the terminal has (None), or COLUMNS if somebody says so, or no bound."""
    return None if (stream and stream.isatty()) or os.environ.get("COLUMNS") else UNBOUNDED


out = _console(to_errors=False)
errors = _console(to_errors=True)

_finished: list[Finished] | None = None  # not None while somebody watches
_started = 0.0
PLAIN_EVERY_S = 15.0  # without a terminal, e.g. in CI, a line this often


def heading(title: str = "") -> None:
    """A line across the terminal with a title in it; where nothing bounds a line, one of 80 columns."""
    out.print(Rule(title, style="dim"), width=80 if out.width == UNBOUNDED else None)


@dataclass(frozen=True)
class Finished:
    """One stage that is done: how long it took, and whether it had to be made."""

    stage: str
    seconds: float
    made: bool


@contextmanager
def only_json() -> Iterator[None]:
    """Keep standard output for JSON: progress, and whatever libraries print there, goes to standard error meanwhile."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def watched() -> Iterator[list[Finished]]:
    """While this is entered, stages that run in this process show their progress here. Gives the list of those finished."""
    global _finished
    before, _finished = _finished, []
    try:
        yield _finished
    finally:
        _finished = before


@contextmanager
def reporting(stage: str) -> Iterator[Report]:
    """A report for one stage; silent unless somebody watches."""
    global _started
    _started = time.monotonic()
    if _finished is None:
        yield Report()
    elif out.is_terminal:
        with _LiveReport(stage) as report:
            yield report
    else:
        yield _PlainReport(stage)


def say(text: str) -> None:
    """One line for whoever watches."""
    if _finished is not None:
        out.print(Text(shown(masked(text)), "dim"))


def finish(stage: str, artifact: Artifact, made: bool) -> None:
    """Say what a stage has made, and how long that took. To be called inside `reporting`."""
    if _finished is None:
        return
    seconds = time.monotonic() - _started
    _finished.append(Finished(stage, seconds, made))
    if made:
        told = Text(headline(artifact), "dim")
        row = Text.assemble(("✓", "green"), f" {stage:<20} {clock(seconds):>6}  ", told)
        out.print(row, no_wrap=True, overflow="ellipsis", soft_wrap=False)
    else:
        out.print(f"[green]✓[/] {stage:<20} {'':>6}  [dim]up to date[/]")


def headline(artifact: Artifact) -> str:
    """An artifact in one line: its rows, and the first figures that its stage found beside them."""
    counts = {table: count for table, count in artifact.manifest.rows.items() if table != "metrics"}
    figures = [
        (n, v)
        for n, v in artifact.manifest.facts.get("figures", {}).items()
        if v not in counts.values() and v != artifact.id
    ]
    told = [f"{count:,} {table}" for table, count in counts.items()]
    return line(
        ", ".join(told + [f"{name.replace('_', ' ')} {cell(value)}" for name, value in figures[:3]])
    )


def cell(value: Any) -> str:
    """One value as people read it, in one line: it may be of a foreign page or manifest."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return line(masked(str(value)))


def accept_any_text() -> None:
    """Let a terminal with a small character set have what it lacks as an escape; it would be an error without."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Pace(ProgressColumn):
    """Done of total, the rate, and the time left: "140/400 steps  4.5/s  0:58 left"."""

    def render(self, task: Task) -> Text:
        total = f"/{_short(task.total)}" if task.total else ""
        told = [f"{_short(task.completed)}{total} {task.fields['unit']}"]
        if task.speed:
            told.append(f"{_short(task.speed)}/s")
        told.append(
            f"{clock(task.elapsed or 0)} gone"
            if task.time_remaining is None
            else f"{clock(task.time_remaining)} left"
        )
        return Text("  ".join(told), no_wrap=True)


class _LiveReport(Report):
    def __init__(self, stage: str):
        columns = (
            SpinnerColumn(),
            TextColumn(f"{stage:<20}"),
            BarColumn(12),
            _Pace(),
            TextColumn("[dim]{task.fields[figure]}"),
        )
        self._bar = Progress(*columns, console=out, transient=True)
        self._task = self._bar.add_task(stage, total=None, unit="", figure="")

    def __enter__(self) -> _LiveReport:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def progress(self, done: float, total: float | None, unit: str) -> None:
        self._bar.update(self._task, completed=done, total=total, unit=unit)

    def metrics(self, step: int, **values: float | None) -> None:
        loss = values.get("loss")
        self._bar.update(self._task, figure=f"loss {loss:.3f}" if loss is not None else "")

    def note(self, text: str) -> None:
        self._bar.console.print(Text(f"  {shown(masked(text))}", "dim"))


class _PlainReport(Report):
    def __init__(self, stage: str):
        self._stage, self._shown, self._loss = stage, time.monotonic(), ""

    def progress(self, done: float, total: float | None, unit: str) -> None:
        if time.monotonic() - self._shown > PLAIN_EVERY_S:
            self._shown = time.monotonic()
            of = f" of {_short(total)}" if total else ""
            print(
                f"  {self._stage}: {_short(done)}{of} {unit}{self._loss}",
                file=sys.stdout,
                flush=True,
            )

    def metrics(self, step: int, **values: float | None) -> None:
        if (loss := values.get("loss")) is not None:
            self._loss = f", loss {loss:.3f}"

    def note(self, text: str) -> None:
        print(f"  {self._stage}: {shown(masked(text))}", file=sys.stdout, flush=True)


def _short(number: float | None) -> str:
    if number is None:
        return "?"
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= size:
            return f"{number / (1e3 if suffix == 'k' else size):.1f}{suffix}"
    return f"{number:.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
