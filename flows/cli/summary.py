"""The end of `groundup run`: artifacts, scores, a few chats, the GGUF file, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from data_contracts import Artifact, Store
from data_contracts.foreign_text import shown
from data_contracts.store.artifact import Manifest
from flows.cli import tables
from flows.cli.console import cell, clock, heading, out, plural
from flows.cli.talk import find
from flows.recipe import Recipe
from flows.runs import FinishedRun
from stages import STAGES

MAX_ANSWER = 200  # tokens of an answer
CLEAR_STANDARD_ERRORS = 2  # a score that is ahead by less is not called better


def show(store: Store, recipe: Recipe, finished: FinishedRun) -> None:
    """Print a summary of a finished run that fits on a screen."""
    name = finished.name
    if not finished.stages_run:
        out.print(f"[green]{name} is up to date[/]: no stage had to run")
    heading("artifacts")
    refs = store.refs.outputs(name)
    rows = []
    for stage in STAGES:
        ref = refs.get(stage.output)
        if ref:
            rows.append(_artifact_row(stage.output, store.open(*ref.key, verify=False)))
    tables.rows(rows, False, empty="")
    heading("scores")
    _scores(store, name)
    if recipe.prompts:
        heading(f"{name} says")
        _chats(store, recipe, name)
    heading()
    count = plural(finished.stages_run, "stage")
    share = ""
    if finished.stages_run:
        share = f", {finished.orchestration_share:.1%} of it orchestration"
    out.print(f"{count} run in {finished.seconds:,.0f} s{share}")
    out.print(f"model:  {find(store, name)}", markup=False)
    out.print(f"cards:  {store.find(f'{name}/release').path}", markup=False)
    out.print(
        f"\nTry next:  [bold]groundup chat {name}[/]"
        "     or  [bold]groundup up[/]  for the Prefect UI"
    )


def _artifact_row(output: str, artifact: Artifact) -> dict[str, Any]:
    manifest = artifact.manifest
    return {
        "artifact": output,
        "rows": tables.counts(manifest),
        "MB": round(manifest.bytes / 1e6, 2),
        "took": _working_time(manifest),
    }


def _working_time(manifest: Manifest) -> str:
    """Return the minutes and seconds that the stage took."""
    started = datetime.fromisoformat(manifest.started)
    finished = datetime.fromisoformat(manifest.finished)
    return clock((finished - started).total_seconds())


def _scores(store: Store, name: str) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("task", "metric", "value", "baseline", ""):
        table.add_column(column, overflow="fold")
    for row in store.find(f"{name}/scores").read("scores").to_pylist():
        table.add_row(
            Text(cell(row["task"])),
            Text(cell(row["metric"])),
            _with_error(row["value"], row["stderr"]),
            Text(cell(_baseline(row))),
            _judgement(row),
        )
    out.print(table, soft_wrap=False)
    out.print("[dim]better: by more than two standard errors; unclear: by less[/]")


def _with_error(value: float | None, standard_error: float | None) -> str:
    if value is None:
        return "–"
    if standard_error is None:
        return f"{value:.3f}"
    return f"{value:.3f} ± {standard_error:.3f}"


def _baseline(row: Mapping[str, Any]) -> str:
    if row["baseline"] is None:
        return "–"
    return f"{row['baseline']:.3f} {row['baseline_name']}"


def _judgement(row: Mapping[str, Any]) -> str:
    """Return whether the score is better than its baseline."""
    value, baseline = row["value"], row["baseline"]
    if value is None or baseline is None:
        return ""
    lead = value - baseline if row["higher_is_better"] else baseline - value
    if lead <= 0:
        return "[yellow]not better[/]"
    is_clear = lead > CLEAR_STANDARD_ERRORS * (row["stderr"] or 0)
    return "[green]better[/]" if is_clear else "[yellow]unclear[/]"


def _chats(store: Store, recipe: Recipe, name: str) -> None:
    from stages.llama_cpp.chat import answer, loaded

    with loaded(find(store, name)) as model:
        for prompt in recipe.prompts:
            question = {"role": "user", "content": prompt}
            text = "".join(answer(model, [question], max_tokens=MAX_ANSWER))
            out.print(Text(f"> {shown(prompt)}", "bold"))
            out.print(f"  {shown(text.strip())}\n", markup=False)
