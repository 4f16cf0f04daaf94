"""Arguments and options that several commands share: what they are called, what their help says, what TAB offers."""

from __future__ import annotations

from typing import Annotated

import typer

import stages
from data_contracts import ConfigError
from flows import recipe
from flows.cli import completion


def _checked_name(name: str | None) -> str | None:
    """Refuse what can never be a name before anything is looked up under it."""
    from data_contracts.store.refs import checked

    return name if name is None else checked(name)


def _not_empty(
    context: typer.Context, option: typer.CallbackParam, value: str | None
) -> str | None:
    """Refuse what an unset variable of a script leaves: nobody means the default by it."""
    if value is not None and not value.strip():
        raise ConfigError(
            f"{option.opts[0]} {value!r}",
            "is empty",
            f"give a value, or leave {option.opts[0]} out",
        )
    return value


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
Preview = Annotated[
    bool, typer.Option("--preview", help="Say which stages would run and why; run none.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        help="A date that makes crawl and evaluation new results, e.g. 2026-01-31.",
        callback=_not_empty,
    ),
]
Artifact = Annotated[
    str,
    typer.Argument(
        metavar="ARTIFACT",
        help="name/output, e.g. demo/tokenizer, or an id.",
        autocompletion=completion.artifacts,
    ),
]
ArtifactOrRun = Annotated[
    str,
    typer.Argument(
        metavar="ARTIFACT|RUN",
        help="name/output, e.g. demo/tokenizer, an id, or a whole run.",
        autocompletion=completion.runs_and_artifacts,
    ),
]
Run = Annotated[
    str | None,
    typer.Argument(
        help="A run; none: all runs.", callback=_checked_name, autocompletion=completion.runs
    ),
]
Model = Annotated[
    str,
    typer.Argument(
        help="A run that has a gguf_model, or a GGUF file.", autocompletion=completion.runs
    ),
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
        callback=_not_empty,
        autocompletion=completion.recipes,
    ),
]
RecipeOfStage = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="R",
        help="Take settings from this recipe, not from the last run.",
        callback=_not_empty,
        autocompletion=completion.recipes,
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        "--host", help="Listen on this address, not on 127.0.0.1; needs --url.", callback=_not_empty
    ),
]
TrustHome = Annotated[
    bool,
    typer.Option(
        "--trust-home",
        help="Accept the home although groundup did not make it for you, from now on.",
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="What browsers open where a reverse proxy adds TLS, e.g. https://HOST.",
        callback=_not_empty,
    ),
]
Quantization = Annotated[
    str | None,
    typer.Option(
        "--quantization", help="Which file of the artifact; default Q8_0.", callback=_not_empty
    ),
]
StageName = Annotated[
    str,
    typer.Argument(
        help=f"One of {', '.join(stages.NAMES)}.", autocompletion=completion.stage_names
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ROLE=ARTIFACT]…",
        help="Inputs; those not given come from --name.",
        autocompletion=completion.inputs,
    ),
]
