"""Arguments and options that several commands share: their names, their help, what TAB offers."""

from __future__ import annotations

from typing import Annotated

import typer

import stages
from data_contracts import ConfigError
from flows import recipe
from flows.cli import completion


def _checked_name(name: str | None) -> str | None:
    """Refuse what can never be the name of a run, before anything is looked up under it."""
    from data_contracts.store.refs import checked

    return name if name is None else checked(name)


def _not_empty(
    context: typer.Context, option: typer.CallbackParam, value: str | None
) -> str | None:
    """Refuse an empty value, which an unset variable in a script leaves. It is not the default."""
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


VersionOption = Annotated[
    bool,
    typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
]
ChangesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change a setting, e.g. dedup.threshold=0.7. Repeat it for several settings.",
        metavar="STAGE.KEY=VALUE",
        autocompletion=completion.settings,
    ),
]
PreviewOption = Annotated[
    bool, typer.Option("--preview", help="Show which stages would run, and why. Run none.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsOfOption = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="DATE",
        help="A date that makes crawl and evaluation new results, e.g. 2026-01-31.",
        callback=_not_empty,
    ),
]
ArtifactArgument = Annotated[
    str,
    typer.Argument(
        metavar="ARTIFACT",
        help="RUN/OUTPUT, e.g. demo/tokenizer, or an id.",
        autocompletion=completion.artifacts,
    ),
]
ArtifactOrRunArgument = Annotated[
    str,
    typer.Argument(
        metavar="ARTIFACT|RUN",
        help="RUN/OUTPUT, e.g. demo/tokenizer, an id, or the name of a run.",
        autocompletion=completion.runs_and_artifacts,
    ),
]
RunArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="The name of a run. Default: list all runs.",
        callback=_checked_name,
        autocompletion=completion.runs,
    ),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FILE",
        help="A run that has a gguf_model, or a GGUF file.",
        autocompletion=completion.runs,
    ),
]
NewRunOption = Annotated[
    str,
    typer.Option(
        "--name",
        metavar="NAME",
        help="The name of the run; its results are NAME/OUTPUT.",
        callback=_checked_name,
        autocompletion=completion.runs,
    ),
]
OldRunOption = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        help="Take inputs and settings from this run, and add the result to it.",
        callback=_checked_name,
        autocompletion=completion.runs,
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        help=f"One of {', '.join(recipe.NAMES)}, or a YAML file. Default: the recipe and the --set"
        " of the last run under this name; tiny if there is none.",
        callback=_not_empty,
        autocompletion=completion.recipes,
    ),
]
RecipeOfStageOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        help="Take settings from this recipe, not from the last run.",
        callback=_not_empty,
        autocompletion=completion.recipes,
    ),
]
HostOption = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="ADDRESS",
        help="Listen on this address, not on 127.0.0.1. Needs --url, unless it is 127.X.Y.Z.",
        callback=_not_empty,
    ),
]
TrustHomeOption = Annotated[
    bool,
    typer.Option(
        "--trust-home",
        help="Accept the home although groundup did not make it for you, from now on.",
    ),
]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="What browsers open where a reverse proxy adds TLS, e.g. https://HOST.",
        callback=_not_empty,
    ),
]
PromptOption = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        metavar="TEXT",
        help="Print the answer to this and exit. Default: hold a conversation.",
    ),
]
QuantizationOption = Annotated[
    str | None,
    typer.Option(
        "--quantization",
        metavar="NAME",
        help="Which of the run's GGUF files to load. Default: Q8_0.",
        callback=_not_empty,
    ),
]
StageArgument = Annotated[
    str,
    typer.Argument(
        metavar="STAGE",
        help=f"One of {', '.join(stages.NAMES)}.",
        autocompletion=completion.stage_names,
    ),
]
InputsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT=ARTIFACT",
        help="Artifacts to work on, e.g. tokenizer=demo/tokenizer. Default: those of --name.",
        autocompletion=completion.inputs,
    ),
]
