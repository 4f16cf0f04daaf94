"""The command line. Every command that reads also prints JSON (`--json`)."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

import stages
from data_contracts import ConfigError
from data_contracts.credentials import masked, masked_values
from flows import private_home, recipe
from flows.cli import artifact_commands, completion, console, failures, renamed_notes, tables
from flows.cli.console import errors, headline, out
from flows.cli.options import (
    ArtifactArgument,
    ArtifactOrRunArgument,
    AsOfOption,
    ChangesOption,
    HostOption,
    InputsArgument,
    JsonOption,
    ModelArgument,
    NewRunOption,
    OldRunOption,
    PreviewOption,
    PromptOption,
    QuantizationOption,
    RecipeOfStageOption,
    RecipeOption,
    RunArgument,
    StageArgument,
    TrustHomeOption,
    UrlOption,
    VersionOption,
)
from flows.home import current_home, open_store

if TYPE_CHECKING:
    from data_contracts.store.refs import RecipeRef

# What only one command needs is imported in that command, so that help, version and completion
# answer at once.

HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    cls=failures.CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=HELP,
)
contracts_app = typer.Typer(
    help="Check, compare and document the data contracts.",
    no_args_is_help=True,
    context_settings=HELP,
)
app.add_typer(contracts_app, name="contracts")


@app.callback()
def groundup(version: VersionOption = False) -> None:
    """Build a language model from the ground up: raw pages in, a chatting GGUF out."""


@app.command()
def run(
    recipe_: RecipeOption = None,
    name: NewRunOption = "demo",
    changes: ChangesOption = None,
    preview_: PreviewOption = False,
    as_of: AsOfOption = None,
    json_: JsonOption = False,
    trust_home: TrustHomeOption = False,
) -> None:
    """Build a model. Stages whose results are up to date do not run again."""
    from data_contracts.store.refs import RecipeRef
    from flows import preview

    store = open_store()
    last = None if recipe_ else store.refs.recipe(name)
    followed = last or RecipeRef(recipe=recipe_ or "tiny")
    changes = recipe.latest_changes([*followed.changes, *(changes or [])])
    loaded = recipe.load(followed.recipe, changes)
    if last and not json_:
        out.print(Text(f"as last time: {masked(_as_options(last))}", "dim"))
    planned = preview.plan_run(store, name, loaded.configs, as_of)
    if preview_:
        tables.planned_stages(planned, name, json_)
        return
    _open_home(trust_home)
    from flows import runs
    from flows.cli import summary

    with _output_for(json_):
        finished = runs.build(store, loaded, name, changes, as_of, planned)
    if json_:
        tables.as_json(finished.as_json())
    else:
        summary.show(store, loaded, finished)


def _as_options(followed: RecipeRef) -> str:
    """Return the options that a person can type to follow the same recipe again."""
    words = ["--recipe", followed.recipe]
    for change in followed.changes:
        words += ["--set", change]
    return shlex.join(words)


def _output_for(json_: bool) -> AbstractContextManager[None]:
    """Keep standard output for JSON, if that is what the command prints."""
    return console.only_json() if json_ else nullcontext()


@app.command("stage")
def run_one_stage(
    stage_name: StageArgument,
    inputs: InputsArgument = None,
    name: OldRunOption = None,
    recipe_: RecipeOfStageOption = None,
    changes: ChangesOption = None,
    and_after: Annotated[
        bool, typer.Option("--and-after", help="Rebuild everything that depends on it, too.")
    ] = False,
    preview_: PreviewOption = False,
    as_of: AsOfOption = None,
    json_: JsonOption = False,
    keys: Annotated[
        bool, typer.Option("--keys", help="List the inputs and settings of the stage. Run nothing.")
    ] = False,
    trust_home: TrustHomeOption = False,
) -> None:
    """Run one stage alone, without the Prefect server. The artifact is the same."""
    stage = stages.stage(stage_name)
    if keys:
        tables.keys(stage, json_)
        return
    from flows import preview, runs
    from flows.settings import settings_for

    store = open_store()
    config = settings_for(store, stage, name, recipe_, changes or [])
    references = runs.parse_inputs(inputs or [])
    planned = preview.plan_stage(store, name, stage, config, references, and_after, as_of)
    if preview_:
        tables.planned_stages(planned, name, json_)
        return
    _open_home(trust_home)
    with _output_for(json_):
        artifacts = runs.run_stages(store, planned, name)
    if json_:
        tables.as_json([tables.artifact(store, artifact) for artifact in artifacts])
    else:
        for artifact in artifacts:
            out.print(str(artifact.path), markup=False)


@app.command()
def up(
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=1, max=65535, help="Port of the UI on 127.0.0.1. Default: 4200."
        ),
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option(
            "--at-once", min=1, help="How many runs the worker executes at a time. Default: 1."
        ),
    ] = None,
    host: HostOption = None,
    url: UrlOption = None,
    trust_home: TrustHomeOption = False,
) -> None:
    """Start the Prefect server, the deployments and a worker, and print the address of the UI."""
    from flows.prefect_host import server

    _open_home(trust_home)
    with out.status("starting Prefect: server, deployments, worker …"):
        address = server.up(current_home(), port, at_once, host, url)
    out.print(Text.assemble(("up", "bold green"), f"  {address}"))
    if address != server.ui_url():
        out.print(
            "It signs your browser in, once, within ten minutes; for a new address: groundup up"
        )
    out.print(
        "Start a model there: Deployments → build-llm → Run → Custom run\n"
        "Stop everything with: groundup down"
    )


@app.command()
def down() -> None:
    """Stop what `up` started. Runs and artifacts stay."""
    from flows.prefect_host import server

    if current_home().path.exists():
        _say(private_home.prepare(current_home(), starts=False))
    out.print(server.down(current_home()))


@app.command()
def ls(name: RunArgument = None, json_: JsonOption = False) -> None:
    """List the artifacts of a run, or all runs."""
    store = open_store()
    if name is not None:
        store.refs.require_run(name)
        tables.refs(store, name, json_)
        return
    rows = []
    for one in store.refs.runs():
        followed = store.refs.recipe(one)
        outputs = store.refs.outputs(one)
        name_of_recipe = followed.recipe if followed else None
        rows.append({"name": one, "artifacts": len(outputs), "recipe": name_of_recipe})
    tables.rows(rows, json_, empty="No runs yet. Make one: groundup run")


@app.command()
def show(artifact: ArtifactOrRunArgument, json_: JsonOption = False) -> None:
    """Show the settings, inputs, rows, facts and files of an artifact, or the recipe of a run."""
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
def path(artifact: ArtifactArgument, json_: JsonOption = False) -> None:
    """Print the folder of an artifact, for other programs."""
    folder = open_store().find(artifact).path
    if json_:
        tables.as_json(str(folder))
    else:
        print(folder)


@app.command()
def lineage(artifact: ArtifactArgument, json_: JsonOption = False) -> None:
    """Show what an artifact was made from, back to the first page."""
    from flows.lineage import tree, upstream

    store = open_store()
    found = store.find(artifact)
    if json_:
        tables.as_json([tables.artifact(store, one) for one in upstream(store, found)])
    else:
        out.print(tree(store, found))


artifact_commands.add_to(app)  # here, because help lists commands in the order of their addition


@app.command()
def chat(
    name: ModelArgument,
    prompt: PromptOption = None,
    quantization: QuantizationOption = None,
) -> None:
    """Chat with a model, in llama.cpp."""
    if prompt is not None and not prompt.strip():
        raise ConfigError(
            "--prompt ''", "is empty", "write a question, or leave --prompt out to chat"
        )
    from flows.cli.talk import talk

    try:
        talk(open_store(), name, prompt, quantization)
    except KeyboardInterrupt as stop:  # how most people leave a conversation
        if prompt or getattr(stop, "number", signal.SIGINT) != signal.SIGINT:
            raise
        out.print()


@app.command("completion")
def print_completion(
    shell: Annotated[
        Literal["bash", "zsh", "fish"],
        typer.Argument(metavar="SHELL", help="bash, zsh or fish."),
    ],
) -> None:
    """Print the script that lets a shell complete commands, options, runs and settings at TAB."""
    print(f"# {completion.ADVICE[shell]}\n{completion.script(shell)}")


@contracts_app.command("check")
def contracts_check(
    freeze: Annotated[
        bool, typer.Option("--freeze", help="Release contracts that are not frozen yet.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Check that released contracts are unchanged, and that their versions are compatible."""
    from data_contracts import frozen

    added = frozen.freeze() if freeze else []
    problems = frozen.problems()
    if json_:
        tables.as_json({"frozen": added, "problems": problems})
    else:
        for name in added:
            out.print(f"frozen: {name}", markup=False)
        for problem in problems:
            out.print(problem, markup=False)
        if problems:
            out.print("[red]contracts are not in order[/]")
        else:
            out.print("[green]contracts are in order[/]")
    if problems:
        raise typer.Exit(1)


@contracts_app.command("diff")
def contracts_diff(
    old: Annotated[
        str,
        typer.Argument(metavar="OLD", help="A contract file, e.g. v1.yaml, or tokenizer@1.0.0."),
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The same for the newer one.")],
    json_: JsonOption = False,
) -> None:
    """Show what changed between two contracts. The exit status is 1 if it breaks readers."""
    from data_contracts.compatibility import changes, find

    differences = changes(find(old), find(new))
    rows = []
    for change in differences:
        row = {"where": change.where, "what": change.what, "breaking": change.breaking}
        rows.append(row)
    tables.rows(rows, json_, empty="no difference")
    if any(change.breaking for change in differences):
        raise typer.Exit(1)


@contracts_app.command("docs")
def contracts_docs() -> None:
    """Write the README of every contract from its YAML."""
    from data_contracts import docs

    for written in docs.write():
        out.print(str(written))


def main() -> None:
    """Run the command line.

    A failure is a line, with exit status 2. After signal n, the exit status is 128+n.
    """
    # No process that starts here imports anything from the folder that a person works in.
    os.environ["PYTHONSAFEPATH"] = "1"
    _share_cores()
    private_home.keep_private()
    renamed_notes.show_on_console()
    if completion.ASKED in os.environ:
        completion.answer_shells()
    as_json = "--json" in sys.argv[1:]
    sys.exit(failures.status_of(lambda: app(standalone_mode=False), as_json))


def _open_home(trust: bool) -> None:
    """Refuse a home that somebody else may have filled, unless it is trusted. Make it private."""
    _say(private_home.prepare(current_home(), trust=trust))


def _say(lines: list[str]) -> None:
    for line in lines:
        errors.print(line, markup=False)


def _share_cores() -> None:
    """Let threads of GNU OpenMP that wait for each other sleep soon.

    It does so by itself only if it has more threads than cores; it does not see other programs.
    Beside one, such as a browser on the page of a run, a training whose threads spin falls to a
    third of its speed, and one whose threads sleep to half. Alone, spinning is up to a fifth
    faster where threads share each operation (decision 0017). All processes that start here inherit
    this.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
