"""What the terminal shows while stages run: a line for each, with its rate and the time left."""

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

# Columns of output that goes to no terminal. Programs read it line by line, and so do people who
# copy a path.
UNBOUNDED = 100_000
HEADING_COLUMNS = 80  # of a heading in such output
PLAIN_EVERY_S = 15.0  # without a terminal, e.g. in CI, there is a line this often
HEADLINE_FIGURES = 3
SUFFIXES = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))  # from this number on, unit, suffix


@dataclass(frozen=True)
class _Shown:
    """Something to print, with every control character in its text made visible.

    What rich itself sends to the terminal stays as it is.
    """

    printed: ConsoleRenderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.printed, options):
            if segment.control:
                yield segment
            else:
                yield Segment(shown(segment.text), segment.style)


class _ShowForeignText(RenderHook):
    """A hook for all that a console prints, so that no page and no name can control a terminal."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Shown(one) for one in renderables]


def _console(to_errors: bool) -> Console:
    """Return a console that shows text as it is: no emoji codes, coloured numbers or controls.

    It does not break long lines. The terminal does, for the eye alone: what is copied stays whole.
    """
    width = _width(sys.stderr if to_errors else sys.stdout)
    console = Console(stderr=to_errors, highlight=False, emoji=False, soft_wrap=True, width=width)
    console.push_render_hook(_ShowForeignText())
    return console


def _width(stream: TextIO | None) -> int | None:
    """Return None for the terminal's width or that of COLUMNS, else a width without bound."""
    is_terminal = stream is not None and stream.isatty()
    if is_terminal or os.environ.get("COLUMNS"):
        return None
    return UNBOUNDED


out = _console(to_errors=False)
errors = _console(to_errors=True)

_finished: list[FinishedStage] | None = None  # not None while somebody watches
_started = 0.0


def heading(title: str = "") -> None:
    """Print a line across the terminal with a title in it; elsewhere a line of 80 columns."""
    width = HEADING_COLUMNS if out.width == UNBOUNDED else None
    out.print(Rule(title, style="dim"), width=width)


@dataclass(frozen=True)
class FinishedStage:
    """One stage that is done.

    Attributes:
        stage: The stage.
        seconds: How long it took.
        made: Whether it made its result now. If not, the result existed before.
    """

    stage: str
    seconds: float
    made: bool


@contextmanager
def only_json() -> Iterator[None]:
    """Keep standard output for JSON.

    Progress, and whatever libraries print, goes to standard error inside.
    """
    sys.stdout.flush()
    standard_output = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(standard_output, 1)
        os.close(standard_output)


@contextmanager
def watched() -> Iterator[list[FinishedStage]]:
    """Show the progress of the stages that run in this process.

    Yields:
        The finished stages. The list grows.
    """
    global _finished
    before, _finished = _finished, []
    try:
        yield _finished
    finally:
        _finished = before


@contextmanager
def reporting(stage: str) -> Iterator[Report]:
    """Provide a report for one stage. It is silent unless somebody watches."""
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
    """Print a line, if somebody watches."""
    if _finished is not None:
        out.print(Text(shown(masked(text)), "dim"))


def finish(stage: str, artifact: Artifact, made: bool) -> None:
    """Print what a stage made and how long that took. Call it inside `reporting`."""
    if _finished is None:
        return
    seconds = time.monotonic() - _started
    _finished.append(FinishedStage(stage, seconds, made))
    if made:
        details = Text(headline(artifact), "dim")
        row = Text.assemble(("✓", "green"), f" {stage:<20} {clock(seconds):>6}  ", details)
        out.print(row, no_wrap=True, overflow="ellipsis", soft_wrap=False)
    else:
        out.print(f"[green]✓[/] {stage:<20} {'':>6}  [dim]up to date[/]")


def headline(artifact: Artifact) -> str:
    """Describe an artifact in one line: its rows, and the first other figures of its stage."""
    manifest = artifact.manifest
    counts = {table: count for table, count in manifest.rows.items() if table != "metrics"}
    known = (*counts.values(), artifact.id)
    parts = [f"{count:,} {table}" for table, count in counts.items()]
    figures = manifest.facts.get("figures", {}).items()
    others = [(name, value) for name, value in figures if value not in known]
    for name, value in others[:HEADLINE_FIGURES]:
        parts.append(f"{name.replace('_', ' ')} {cell(value)}")
    return line(", ".join(parts))


def cell(value: Any) -> str:
    """Format one value for people, in one line. It may come from a foreign page or manifest."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return line(masked(str(value)))


def plural(count: int, singular: str) -> str:
    """Format a count of things: "1 stage", "1,200 stages"."""
    return f"{count:,} {singular}" if count == 1 else f"{count:,} {singular}s"


def accept_any_text() -> None:
    """Print an escape for a character that the terminal's character set lacks, and no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _ProgressRate(ProgressColumn):
    """How much is done, the rate, and the time left: "140/400 steps  4.5/s  0:58 left"."""

    def render(self, task: Task) -> Text:
        total = f"/{_abbreviated(task.total)}" if task.total else ""
        parts = [f"{_abbreviated(task.completed)}{total} {task.fields['unit']}"]
        if task.speed:
            parts.append(f"{_abbreviated(task.speed)}/s")
        if task.time_remaining is None:
            parts.append(f"{clock(task.elapsed or 0)} elapsed")
        else:
            parts.append(f"{clock(task.time_remaining)} left")
        return Text("  ".join(parts), no_wrap=True)


class _LiveReport(Report):
    """A line in a terminal that is redrawn."""

    def __init__(self, stage: str):
        columns = (
            SpinnerColumn(),
            TextColumn(f"{stage:<20}"),
            BarColumn(12),
            _ProgressRate(),
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
        self._bar.update(self._task, figure="" if loss is None else f"loss {loss:.3f}")

    def note(self, text: str) -> None:
        self._bar.console.print(Text(f"  {shown(masked(text))}", "dim"))


class _PlainReport(Report):
    """A line now and then, where there is no terminal."""

    def __init__(self, stage: str):
        self._stage = stage
        self._printed_at = time.monotonic()
        self._loss = ""

    def progress(self, done: float, total: float | None, unit: str) -> None:
        if time.monotonic() - self._printed_at > PLAIN_EVERY_S:
            self._printed_at = time.monotonic()
            of_total = f" of {_abbreviated(total)}" if total else ""
            self._print(f"{_abbreviated(done)}{of_total} {unit}{self._loss}")

    def metrics(self, step: int, **values: float | None) -> None:
        loss = values.get("loss")
        if loss is not None:
            self._loss = f", loss {loss:.3f}"

    def note(self, text: str) -> None:
        self._print(shown(masked(text)))

    def _print(self, text: str) -> None:
        print(f"  {self._stage}: {text}", file=sys.stdout, flush=True)


def _abbreviated(number: float | None) -> str:
    """Return a number in a few characters: "1.2M", "45.0k", "310", "4.5"."""
    if number is None:
        return "?"
    for least, unit, suffix in SUFFIXES:
        if abs(number) >= least:
            return f"{number / unit:.1f}{suffix}"
    is_whole = number == int(number)
    return f"{number:.0f}" if is_whole or number >= 10 else f"{number:.1f}"


def clock(seconds: float) -> str:
    """Format a time as minutes and seconds: "3:05"."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
