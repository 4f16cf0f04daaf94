"""What a person sees at the end of `groundup run`: artifacts, scores, a few chats, the GGUF, and what to do next."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from data_contracts import Artifact, Store
from data_contracts.foreign_text import shown
from data_contracts.store.artifact import Manifest
from flows.cli import tables
from flows.cli.console import cell, clock, heading, out
from flows.cli.talk import find
from flows.recipe import Recipe
from flows.runs import Built
from stages import STAGES

MAX_ANSWER = 200  # tokens of a show answer


def show(store: Store, what: Recipe, built: Built) -> None:
    """Everything about a finished run, in a screenful."""
    if not built.stages_run:
        out.print(f"[green]{built.name} is up to date[/]: no stage had to run")
    heading("artifacts")
    refs = store.refs.outputs(built.name)
    made = [
        (row.output, store.open(p.artifact_type, p.id, verify=False))
        for row in STAGES
        if (p := refs.get(row.output))
    ]
    tables.rows([_artifact(output, artifact) for output, artifact in made], False, empty="")
    heading("scores")
    _scores(store, built.name)
    if what.prompts:
        heading(f"{built.name} says")
        _chats(store, what, built.name)
    heading()
    share = f", {built.orchestration_share:.1%} of it orchestration" if built.stages_run else ""
    out.print(f"{built.stages_run} stages run in {built.seconds:,.0f} s{share}")
    out.print(f"model:  {find(store, built.name)}", markup=False)
    out.print(f"cards:  {store.find(f'{built.name}/release').path}", markup=False)
    out.print(
        f"\nTry next:  [bold]groundup chat {built.name}[/]     or  [bold]groundup up[/]  for the Prefect UI"
    )


def _artifact(output: str, made: Artifact) -> dict[str, Any]:
    return {
        "artifact": output,
        "rows": tables.counts(made.manifest),
        "MB": round(made.manifest.bytes / 1e6, 2),
        "took": _took(made.manifest),
    }


def _took(manifest: Manifest) -> str:
    """Minutes and seconds that the stage worked."""
    started, finished = (
        datetime.fromisoformat(text) for text in (manifest.started, manifest.finished)
    )
    return clock((finished - started).total_seconds())


def _scores(store: Store, name: str) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("task", "metric", "value", "baseline", ""):
        table.add_column(column, overflow="fold")
    artifact = store.find(f"{name}/scores")
    for row in artifact.read("scores").to_pylist():
        baseline = (
            "–" if row["baseline"] is None else f"{row['baseline']:.3f} {row['baseline_name']}"
        )
        better = _better(row["value"], row["baseline"], row["stderr"], row["higher_is_better"])
        names = (Text(cell(row[column])) for column in ("task", "metric"))
        table.add_row(*names, _measured(row["value"], row["stderr"]), Text(cell(baseline)), better)
    out.print(table, soft_wrap=False)
    out.print("[dim]better: by more than two standard errors; unclear: by less[/]")


def _measured(value: float | None, stderr: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if stderr is None else f"{value:.3f} ± {stderr:.3f}"


def _better(
    value: float | None, baseline: float | None, stderr: float | None, higher_is_better: bool
) -> str:
    if value is None or baseline is None:
        return ""
    lead = (value - baseline) * (1 if higher_is_better else -1)
    if lead <= 0:
        return "[yellow]not better[/]"
    return "[green]better[/]" if lead > 2 * (stderr or 0) else "[yellow]unclear[/]"


def _chats(store: Store, what: Recipe, name: str) -> None:
    from stages.llama_cpp.chat import answer, loaded

    with loaded(find(store, name)) as model:
        for prompt in what.prompts:
            said = "".join(
                answer(model, [{"role": "user", "content": prompt}], max_tokens=MAX_ANSWER)
            )
            out.print(Text(f"> {shown(prompt)}", "bold"))
            out.print(f"  {shown(said.strip())}\n", markup=False)
