"""The command line. Every reading command also speaks JSON (`--json`)."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated

import typer
from rich.text import Text

import stages
from data_contracts import GroundupError, Interrupted
from data_contracts.credentials import masked, nothing_secret
from flows import artifact_commands, console, preview, private_home, recipe, tables
from flows.console import errors, headline, out
from flows.home import home, open_store
from flows.settings import settings_for

app = typer.Typer(
    help="Builds a language model from the ground up: raw pages in, a chatting GGUF out.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
)  # fmt: skip
contracts_app = typer.Typer(help="The data contracts: check, compare, document.", no_args_is_help=True)
app.add_typer(contracts_app, name="contracts")
artifact_commands.add_to(app)

STOPPED = 130  # exit status, as of every program that Ctrl-C ends

Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting that differs, e.g. dedup.threshold=0.7 (repeatable).", metavar="STAGE.KEY=VALUE"),
]
Preview = Annotated[bool, typer.Option("--preview", help="Say which stages would run and why; run none.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsOf = Annotated[str | None, typer.Option("--as-of", help="A date that makes crawl and evaluate new results, e.g. 2026-01-31.")]
Ref = Annotated[str, typer.Argument(metavar="ARTIFACT", help="name/role, e.g. demo/tokenizer, or an id.")]


@app.command()
def run(
    recipe_: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="R",
            help=f"One of {', '.join(recipe.NAMES)}, or a YAML file. "
            "Default: as in the last run under this name, its --set included, else tiny.",
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="N", help="What the results are called.")] = "demo",
    changes: Changes = None,
    preview_: Preview = False,
    as_of: AsOf = None,
    json_: Json = False,
) -> None:
    """Build a model: every stage that is missing or stale, and none that is not."""
    store = open_store()
    last = None if recipe_ else store.names.recipe(name)
    changes = recipe.latest([*(last.changes if last else ()), *(changes or [])])
    loaded = recipe.load(recipe_ or (last.recipe if last else "tiny"), changes)
    if last and not json_:
        options = shlex.join(["--recipe", last.recipe, *(part for text in last.changes for part in ("--set", text))])
        out.print(Text(f"as last time: {masked(options)}", "dim"), soft_wrap=True)
    steps = preview.whole(store, name, loaded.configs, as_of)
    if preview_:
        tables.steps(steps, name, json_)
        return
    _close_home()
    from flows import runs, summary

    with console.only_json() if json_ else nullcontext():
        built = runs.build(store, loaded, name, changes, as_of, steps)
    if json_:
        tables.as_json(built.as_json())
    else:
        summary.show(store, loaded, built)


@app.command()
def stage(
    verb: Annotated[str, typer.Argument(help=f"One of {', '.join(stages.NAMES)}.")],
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="[ROLE=ARTIFACT]…", help="Inputs; those not given come from --name.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="N", help="Take inputs and settings from this run, and let it have the result.")
    ] = None,
    recipe_: Annotated[
        str | None, typer.Option("--recipe", metavar="R", help="Take settings from this recipe, not from the last run.")
    ] = None,
    changes: Changes = None,
    and_after: Annotated[bool, typer.Option("--and-after", help="Rebuild everything that depends on it, too.")] = False,
    preview_: Preview = False,
    as_of: AsOf = None,
    json_: Json = False,
    keys: Annotated[bool, typer.Option("--keys", help="List the stage's settings and inputs; run nothing.")] = False,
) -> None:
    """Run one stage alone: no server, no flow, the same artifact."""
    row = stages.stage(verb)
    if keys:
        tables.keys(row, json_)
        return
    from flows import runs

    store = open_store()
    config = settings_for(store, row, name, recipe_, changes or [])
    given = dict(runs.parse_input(text) for text in inputs or [])
    steps = preview.one(store, name, row, config, given, and_after, as_of)
    if preview_:
        tables.steps(steps, name, json_)
        return
    _close_home()
    with console.only_json() if json_ else nullcontext():
        made = runs.alone(store, steps, name)
    if json_:
        tables.as_json([tables.artifact(store, artifact) for artifact in made])
    else:
        for artifact in made:
            out.print(str(artifact.path), markup=False, soft_wrap=True)


@app.command()
def up(
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Port of the UI on 127.0.0.1 (default 4200).")] = None,
    at_once: Annotated[int | None, typer.Option("--at-once", min=1, help="How many runs the worker does at a time (default 1).")] = None,
    host: Annotated[str | None, typer.Option("--host", help="Listen on this address, not on 127.0.0.1; needs --url.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="What browsers open where a reverse proxy adds TLS, e.g. https://HOST.")] = None,
) -> None:
    """Start the Prefect server, the deployments and a worker; print an address that signs your browser in."""
    from flows import server

    _close_home()
    with out.status("starting Prefect: server, deployments, worker …"):
        address = server.up(home(), port, at_once, host, url)
    out.print(Text.assemble(("up", "bold green"), f"  {address}"), soft_wrap=True)
    if address != server.ui_url():
        out.print("It signs your browser in, once, within ten minutes; for a new address: groundup up")
    out.print("Start a model there: Deployments → build-llm → Run → Custom run\nStop everything with: groundup down")


@app.command()
def down() -> None:
    """Stop what `up` started. Nothing is lost: runs and artifacts stay."""
    from flows import server

    out.print(server.down(home()))


@app.command()
def ls(name: Annotated[str | None, typer.Argument(help="A run; none: all runs.")] = None, json_: Json = False) -> None:
    """The artifacts of a run, or all runs."""
    store = open_store()
    if name is None:
        followed = {n: store.names.recipe(n) for n in store.names.all()}
        rows = [{"name": n, "artifacts": len(store.names.roles(n)), "recipe": f.recipe if f else None} for n, f in followed.items()]
        tables.rows(rows, json_, empty="No runs yet. Make one: groundup run")
        return
    pointings = store.names.roles(name)
    if not pointings:
        store.resolve(f"{name}/raw_documents")  # raises, and names what there is
    order = {row.role: number for number, row in enumerate(stages.STAGES)}
    tables.pointings(store, name, {role: pointings[role] for role in sorted(pointings, key=lambda role: order.get(role, 99))}, json_)


@app.command()
def show(artifact: Ref, json_: Json = False) -> None:
    """What an artifact is: settings, inputs, rows, facts, files."""
    store = open_store()
    found = store.find(artifact)
    if json_:
        tables.as_json(found.manifest.model_dump(mode="json"))
        return
    title = Text.assemble((str(found), "bold"), f"  {headline(found)}\n  {found.place}")
    out.print(title, soft_wrap=True)
    out.print_json(masked(found.manifest.model_dump_json(exclude={"files"})))
    tables.rows([entry.model_dump() for entry in found.manifest.files], False, empty="no files")


@app.command()
def path(artifact: Ref, json_: Json = False) -> None:
    """The folder of an artifact, for other programs."""
    found = open_store().find(artifact).path
    tables.as_json(str(found)) if json_ else print(found)


@app.command()
def lineage(artifact: Ref, json_: Json = False) -> None:
    """What an artifact was made from, back to the first page."""
    from flows.lineage import tree, upstream

    store = open_store()
    found = store.find(artifact)
    if json_:
        tables.as_json([tables.artifact(store, one) for one in upstream(store, found)])
    else:
        out.print(tree(store, found))


@app.command()
def chat(
    name: Annotated[str, typer.Argument(help="A run that has a gguf_model, or a GGUF file.")],
    prompt: Annotated[str | None, typer.Option("--prompt", help="Ask this and leave; none: talk.")] = None,
    quantization: Annotated[str | None, typer.Option("--quantization", help="Which file of the artifact; default Q8_0.")] = None,
) -> None:
    """Talk to a model in llama.cpp."""
    from flows.talk import talk

    try:
        talk(open_store(), name, prompt, quantization)
    except KeyboardInterrupt:  # how most people leave
        out.print()


@contracts_app.command("check")
def contracts_check(
    freeze: Annotated[bool, typer.Option("--freeze", help="Release contracts that are not frozen yet.")] = False, json_: Json = False
) -> None:
    """Are all released contracts unchanged, compatible within their major version, and migratable across?"""
    from data_contracts import frozen

    added = frozen.freeze() if freeze else []
    told = frozen.problems()
    if json_:
        tables.as_json({"frozen": added, "problems": told})
    else:
        for line in [*(f"frozen: {name}" for name in added), *told]:
            out.print(line, markup=False)
        out.print("[red]contracts are not in order[/]" if told else "[green]contracts are in order[/]")
    if told:
        raise typer.Exit(1)


@contracts_app.command("diff")
def contracts_diff(
    old: Annotated[str, typer.Argument(help="A contract file, e.g. v1.yaml, or noun@1.0.0.")],
    new: Annotated[str, typer.Argument(help="The same for the newer one.")],
    json_: Json = False,
) -> None:
    """What changed between two contracts, and whether it breaks readers. Exit status 1 if it does."""
    from data_contracts.compatibility import changes, find

    found = changes(find(old), find(new))
    tables.rows([{"where": c.where, "what": c.what, "breaking": c.breaking} for c in found], json_, empty="no difference")
    if any(change.breaking for change in found):
        raise typer.Exit(1)


@contracts_app.command("docs")
def contracts_docs() -> None:
    """Write the README of every contract anew from its YAML."""
    from data_contracts import docs

    for written in docs.write():
        out.print(str(written))


def main() -> None:
    """Run the command line. A GroundupError is printed as what it is, without a traceback, with exit status 2; a stop is 130."""
    _share_cores()
    private_home.keep_private()
    console.accept_any_text()
    with _told_plainly(), nothing_secret():
        app()


def _close_home() -> None:
    """The home is the user's alone from here on; what was open is told."""
    for line in private_home.prepare(home()):
        errors.print(line, markup=False, soft_wrap=True)


def _share_cores() -> None:
    """Let threads of GNU OpenMP that wait for each other sleep soon, as it does by itself where there are more threads than cores.

    It does not see other programs. With one beside it, a browser on the run's page for instance, a training whose threads spin in
    front of each other falls to a third of its speed, and to half where they sleep; alone it is as fast. Inherited by all that starts here.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")


@contextmanager
def _told_plainly() -> Iterator[None]:
    try:
        yield
    except Interrupted as stop:
        errors.print(f"interrupted; {stop.what} {stop.why}; {stop.fix}", markup=False)
        sys.exit(STOPPED)
    except GroundupError as error:
        errors.print("[bold red]error[/] ", end="")
        errors.print(f"{error.what}: {error.why}", markup=False)
        errors.print("  to repair: ", end="", style="bold")
        errors.print(error.fix, markup=False)
        sys.exit(2)
    except SystemExit as end:
        if end.code == STOPPED:  # typer's answer to Ctrl-C
            errors.print("interrupted; run the same command again to go on")
        raise
