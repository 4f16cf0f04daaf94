"""What a person sees at the end of `groundup run`: artifacts, scores, a few chats, the GGUF, and what to do next."""

from __future__ import annotations

from rich.table import Table

from data_contracts import Store
from flows import tables
from flows.console import cell, out
from flows.recipe import Recipe
from flows.runs import Built
from flows.talk import find
from stages import STAGES

MAX_ANSWER = 200  # tokens of a show answer


def show(store: Store, what: Recipe, built: Built) -> None:
    """Everything about a finished run, in a screenful."""
    if not built.stages_run:
        out.print(f"[green]{built.name} is up to date[/]: no stage had to run")
    out.rule("artifacts", style="dim")
    pointings = store.names.roles(built.name)
    tables.rows([tables.pointing(store, row.role, pointings[row.role]) for row in STAGES if row.role in pointings], False, empty="")
    out.rule("scores", style="dim")
    _scores(store, built.name)
    if what.prompts:
        out.rule(f"{built.name} says", style="dim")
        _chats(store, what, built.name)
    out.rule(style="dim")
    share = f", {built.orchestration_share:.1%} of it orchestration" if built.stages_run else ""
    out.print(f"{built.stages_run} stages run in {built.seconds:,.0f} s{share}")
    out.print(f"model:  {find(store, built.name)}", soft_wrap=True)
    out.print(f"cards:  {store.find(f'{built.name}/release').path}", soft_wrap=True)
    out.print(f"\nTry next:  [bold]groundup chat {built.name}[/]     or  [bold]groundup up[/]  for the Prefect UI")


def _scores(store: Store, name: str) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("task", "metric", "value", "± stderr", "items", "baseline", ""):
        table.add_column(column)
    artifact = store.find(f"{name}/scores")
    for row in artifact.read("scores").to_pylist():
        baseline = "–" if row["baseline"] is None else f"{row['baseline']:.3f} ({row['baseline_name']})"
        better = _better(row["value"], row["baseline"], row["higher_is_better"])
        cells = (row["task"], row["metric"], cell(row["value"]), cell(row["stderr"]), cell(row["n"]), baseline, better)
        table.add_row(*cells)
    out.print(table)
    for note in artifact.manifest.facts.get("notes", []):
        out.print(f"[dim]{note}[/]")


def _better(value: float | None, baseline: float | None, higher_is_better: bool) -> str:
    if value is None or baseline is None:
        return ""
    return "[green]better[/]" if (value > baseline) == higher_is_better and value != baseline else "[yellow]not better[/]"


def _chats(store: Store, what: Recipe, name: str) -> None:
    from stages.export_gguf.chat import answer, loaded

    with loaded(find(store, name)) as model:
        for prompt in what.prompts:
            said = "".join(answer(model, [{"role": "user", "content": prompt}], max_tokens=MAX_ANSWER))
            out.print(f"[bold]> {prompt}[/]")
            out.print(f"  {said.strip()}\n", markup=False)
