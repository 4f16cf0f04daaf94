"""Arguments and options that several commands share: what they are called, what their help says, what TAB offers."""

from __future__ import annotations

from typing import Annotated

import typer

import stages
from flows import completion, recipe


def _checked_name(name: str | None) -> str | None:
    """Refuse what can never be a name before anything is looked up under it."""
    from data_contracts.names import checked

    return name if name is None else checked(name)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        print(f"groundup {version('groundup')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A setting that differs, e.g. dedup.threshold=0.7 (repeatable).",
        metavar="STAGE.KEY=VALUE",
        autocompletion=completion.settings,
    ),
]
Preview = Annotated[bool, typer.Option("--preview", help="Say which stages would run and why; run none.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        help="A date that makes crawl and evaluation new results, e.g. 2026-01-31.",
    ),
]
Artifact = Annotated[
    str,
    typer.Argument(
        metavar="ARTIFACT",
        help="name/role, e.g. demo/tokenizer, or an id.",
        autocompletion=completion.artifacts,
    ),
]
ArtifactOrRun = Annotated[
    str,
    typer.Argument(
        metavar="ARTIFACT|RUN",
        help="name/role, e.g. demo/tokenizer, an id, or a whole run.",
        autocompletion=completion.runs_and_artifacts,
    ),
]
Run = Annotated[
    str | None,
    typer.Argument(help="A run; none: all runs.", callback=_checked_name, autocompletion=completion.runs),
]
Model = Annotated[
    str,
    typer.Argument(help="A run that has a gguf_model, or a GGUF file.", autocompletion=completion.runs),
]
NewName = Annotated[
    str,
    typer.Option(
        "--name",
        metavar="N",
        help="What the results are called.",
        callback=_checked_name,
        autocompletion=completion.runs,
    ),
]
OldName = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="N",
        help="Take inputs and settings from this run, and let it have the result.",
        callback=_checked_name,
        autocompletion=completion.runs,
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="R",
        help=f"One of {', '.join(recipe.NAMES)}, or a YAML file. "
        "Default: as in the last run under this name, its --set included, else tiny.",
        autocompletion=completion.recipes,
    ),
]
RecipeOfStage = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="R",
        help="Take settings from this recipe, not from the last run.",
        autocompletion=completion.recipes,
    ),
]
StageName = Annotated[
    str,
    typer.Argument(help=f"One of {', '.join(stages.NAMES)}.", autocompletion=completion.stage_names),
]
Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ROLE=ARTIFACT]…",
        help="Inputs; those not given come from --name.",
        autocompletion=completion.inputs,
    ),
]
