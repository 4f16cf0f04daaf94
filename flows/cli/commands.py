"""The command line. Every reading command also speaks JSON (`--json`)."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from contextlib import nullcontext
from typing import Annotated, Literal

import typer
from rich.text import Text

import stages
from data_contracts import ConfigError
from data_contracts.credentials import masked, masked_values
from flows import private_home, recipe
from flows.cli import artifact_commands, completion, console, failures, renamed_notes, tables
from flows.cli.console import errors, headline, out
from flows.cli.options import (
    Artifact,
    ArtifactOrRun,
    AsOf,
    Changes,
    Host,
    Inputs,
    Json,
    Model,
    NewName,
    OldName,
    Preview,
    Quantization,
    Recipe,
    RecipeOfStage,
    Run,
    StageName,
    TrustHome,
    Url,
    Version,
)  # fmt: skip
from flows.home import home, open_store

# What a command alone needs is imported in it: help, version and completion answer at once.

HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=HELP,
)
contracts_app = typer.Typer(
    help="The data contracts: check, compare, document.",
    no_args_is_help=True,
    context_settings=HELP,
)
app.add_typer(contracts_app, name="contracts")


@app.callback()
def groundup(
    version: Version = False,
) -> None:
    """Builds a language model from the ground up: raw pages in, a chatting GGUF out."""


@app.command()
def run(
    recipe_: Recipe = None,
    name: NewName = "demo",
    changes: Changes = None,
    preview_: Preview = False,
    as_of: AsOf = None,
    json_: Json = False,
    trust_home: TrustHome = False,
) -> None:
    """Build a model: every stage that is missing or stale, and none that is not."""
    from flows import preview

    store = open_store()
    last = None if recipe_ else store.refs.recipe(name)
    changes = recipe.latest([*(last.changes if last else ()), *(changes or [])])
    loaded = recipe.load(recipe_ or (last.recipe if last else "tiny"), changes)
    if last and not json_:
        options = shlex.join(
            ["--recipe", last.recipe, *(part for text in last.changes for part in ("--set", text))]
        )
        out.print(Text(f"as last time: {masked(options)}", "dim"))
    steps = preview.whole(store, name, loaded.configs, as_of)
    if preview_:
        tables.steps(steps, name, json_)
        return
    _open_home(trust_home)
    from flows import runs
    from flows.cli import summary

    with console.only_json() if json_ else nullcontext():
        built = runs.build(store, loaded, name, changes, as_of, steps)
    if json_:
        tables.as_json(built.as_json())
    else:
        summary.show(store, loaded, built)


@app.command()
def stage(
    verb: StageName,
    inputs: Inputs = None,
    name: OldName = None,
    recipe_: RecipeOfStage = None,
    changes: Changes = None,
    and_after: Annotated[
        bool, typer.Option("--and-after", help="Rebuild everything that depends on it, too.")
    ] = False,
    preview_: Preview = False,
    as_of: AsOf = None,
    json_: Json = False,
    keys: Annotated[
        bool, typer.Option("--keys", help="List the stage's settings and inputs; run nothing.")
    ] = False,
    trust_home: TrustHome = False,
) -> None:
    """Run one stage alone: no server, no flow, the same artifact."""
    row = stages.stage(verb)
    if keys:
        tables.keys(row, json_)
        return
    from flows import preview, runs
    from flows.settings import settings_for

    store = open_store()
    config = settings_for(store, row, name, recipe_, changes or [])
    given = dict(runs.parse_input(text) for text in inputs or [])
    steps = preview.one(store, name, row, config, given, and_after, as_of)
    if preview_:
        tables.steps(steps, name, json_)
        return
    _open_home(trust_home)
    with console.only_json() if json_ else nullcontext():
        made = runs.alone(store, steps, name)
    if json_:
        tables.as_json([tables.artifact(store, artifact) for artifact in made])
    else:
        for artifact in made:
            out.print(str(artifact.path), markup=False)


@app.command()
def up(
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=1, max=65535, help="Port of the UI on 127.0.0.1 (default 4200)."
        ),
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option(
            "--at-once", min=1, help="How many runs the worker does at a time (default 1)."
        ),
    ] = None,
    host: Host = None,
    url: Url = None,
    trust_home: TrustHome = False,
) -> None:
    """Start the Prefect server, the deployments and a worker; print an address that signs your browser in."""
    from flows.prefect_host import server

    _open_home(trust_home)
    with out.status("starting Prefect: server, deployments, worker …"):
        address = server.up(home(), port, at_once, host, url)
    out.print(Text.assemble(("up", "bold green"), f"  {address}"))
    if address != server.ui_url():
        out.print(
            "It signs your browser in, once, within ten minutes; for a new address: groundup up"
        )
    out.print(
        "Start a model there: Deployments → build-llm → Run → Custom run\nStop everything with: groundup down"
    )


@app.command()
def down() -> None:
    """Stop what `up` started. Nothing is lost: runs and artifacts stay."""
    from flows.prefect_host import server

    if home().path.exists():
        _say(private_home.prepare(home(), starts=False))
    out.print(server.down(home()))


@app.command()
def ls(name: Run = None, json_: Json = False) -> None:
    """The artifacts of a run, or all runs."""
    store = open_store()
    if name is None:
        followed = {n: store.refs.recipe(n) for n in store.refs.runs()}
        rows = [
            {"name": n, "artifacts": len(store.refs.outputs(n)), "recipe": f.recipe if f else None}
            for n, f in followed.items()
        ]
        tables.rows(rows, json_, empty="No runs yet. Make one: groundup run")
        return
    store.refs.require_run(name)
    tables.refs(store, name, json_)


@app.command()
def show(artifact: ArtifactOrRun, json_: Json = False) -> None:
    """What an artifact is: settings, inputs, rows, facts, files. Of a run: its recipe and its artifacts."""
    store = open_store()
    if artifact in store.refs.runs():
        tables.run(store, artifact, json_)
        return
    found = store.find(artifact)
    if json_:
        tables.as_json(found.manifest.model_dump(mode="json"))
        return
    title = Text.assemble((str(found), "bold"), f"  {headline(found)}\n  {found.folder}")
    out.print(title)
    out.print_json(data=masked_values(found.manifest.model_dump(mode="json", exclude={"files"})))
    tables.rows([entry.model_dump() for entry in found.manifest.files], False, empty="no files")


@app.command()
def path(artifact: Artifact, json_: Json = False) -> None:
    """The folder of an artifact, for other programs."""
    found = open_store().find(artifact).path
    tables.as_json(str(found)) if json_ else print(found)


@app.command()
def lineage(artifact: Artifact, json_: Json = False) -> None:
    """What an artifact was made from, back to the first page."""
    from flows.lineage import tree, upstream

    store = open_store()
    found = store.find(artifact)
    if json_:
        tables.as_json([tables.artifact(store, one) for one in upstream(store, found)])
    else:
        out.print(tree(store, found))


artifact_commands.add_to(app)  # here: help lists commands in the order in which they are added


@app.command()
def chat(
    name: Model,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="Ask this and leave; none: talk.")
    ] = None,
    quantization: Quantization = None,
) -> None:
    """Talk to a model in llama.cpp."""
    if prompt is not None and not prompt.strip():
        raise ConfigError(
            "--prompt ''", "is empty", "write a question, or leave --prompt out to talk"
        )
    from flows.cli.talk import talk

    try:
        talk(open_store(), name, prompt, quantization)
    except KeyboardInterrupt as stop:  # how most people leave a talk
        if prompt or getattr(stop, "number", signal.SIGINT) != signal.SIGINT:
            raise
        out.print()


@app.command("completion")
def print_completion(
    shell: Annotated[
        Literal["bash", "zsh", "fish"], typer.Argument(help="The shell that is to complete words.")
    ],
) -> None:
    """Print what makes a shell complete commands, options, runs and settings at TAB."""
    print(f"# {completion.ADVICE[shell]}\n{completion.script(shell)}")


@contracts_app.command("check")
def contracts_check(
    freeze: Annotated[
        bool, typer.Option("--freeze", help="Release contracts that are not frozen yet.")
    ] = False,
    json_: Json = False,
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
        out.print(
            "[red]contracts are not in order[/]" if told else "[green]contracts are in order[/]"
        )
    if told:
        raise typer.Exit(1)


@contracts_app.command("diff")
def contracts_diff(
    old: Annotated[
        str, typer.Argument(help="A contract file, e.g. v1.yaml, or artifact_type@1.0.0.")
    ],
    new: Annotated[str, typer.Argument(help="The same for the newer one.")],
    json_: Json = False,
) -> None:
    """What changed between two contracts, and whether it breaks readers. Exit status 1 if it does."""
    from data_contracts.compatibility import changes, find

    found = changes(find(old), find(new))
    tables.rows(
        [{"where": c.where, "what": c.what, "breaking": c.breaking} for c in found],
        json_,
        empty="no difference",
    )
    if any(change.breaking for change in found):
        raise typer.Exit(1)


@contracts_app.command("docs")
def contracts_docs() -> None:
    """Write the README of every contract anew from its YAML."""
    from data_contracts import docs

    for written in docs.write():
        out.print(str(written))


def main() -> None:
    """Run the command line. Failures are told in a line, with exit status 2; a signal n ends it with status 128+n."""
    os.environ["PYTHONSAFEPATH"] = (
        "1"  # no process that starts here imports anything from the folder that one works in
    )
    _share_cores()
    private_home.keep_private()
    renamed_notes.show_on_console()
    if completion.ASKED in os.environ:
        completion.answer_shells()
    as_json = "--json" in sys.argv[1:]
    sys.exit(failures.status_of(lambda: app(standalone_mode=False), as_json))


def _open_home(trust: bool) -> None:
    """Refuse a home that somebody else may have filled, unless it is trusted; close it to others."""
    _say(private_home.prepare(home(), trust=trust))


def _say(lines: list[str]) -> None:
    for line in lines:
        errors.print(line, markup=False)


def _share_cores() -> None:
    """Let threads of GNU OpenMP that wait for each other sleep soon, as it does by itself where there are more threads than cores.

    It does not see other programs. With one beside it, a browser on the run's page for instance, a training whose threads spin in
    front of each other falls to a third of its speed, and to half where they sleep; alone it is as fast. Inherited by all that starts here.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
