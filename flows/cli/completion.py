"""What the shell offers at TAB: runs, artifacts, stages, recipes and settings. Whatever goes wrong meanwhile, it offers nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps

import stages

SHELLS = ("bash", "zsh", "fish")
ADVICE = {
    "bash": 'eval "$(groundup completion bash)"   in ~/.bashrc',
    "zsh": 'eval "$(groundup completion zsh)"   in ~/.zshrc, after compinit',
    "fish": "groundup completion fish | source   in ~/.config/fish/config.fish",
}

ASKED = "_GROUNDUP_COMPLETE"  # the variable by which a shell's script asks

Offer = Callable[[str], list[str]]


def answer_shells() -> None:
    """Have typer know the shells: it does so by itself only where it may offer to install its own script."""
    from typer.completion import completion_init

    completion_init()


def script(shell: str) -> str:
    """What the shell has to run once so that it asks groundup at TAB."""
    from typer.completion import get_completion_script

    return get_completion_script(prog_name="groundup", complete_var=ASKED, shell=shell)


def _offer(find: Callable[[str], Iterable[str]]) -> Offer:
    """Those found that go on from what is typed; none if the store cannot be read: a message would land in the typed line."""

    @wraps(find)
    def offered(incomplete: str) -> list[str]:
        try:
            return sorted(one for one in find(incomplete) if one.startswith(incomplete))
        except Exception:
            return []

    return offered


@_offer
def runs(incomplete: str) -> Iterable[str]:
    """Names of runs."""
    from flows.home import open_store

    return open_store().refs.runs()


@_offer
def artifacts(incomplete: str) -> Iterable[str]:
    """RUN/OUTPUT, once the run is typed; before that, runs."""
    from flows.home import open_store

    name, slash, _ = incomplete.partition("/")
    refs = open_store().refs
    if slash:
        return [f"{name}/{output}" for output in refs.outputs(name)]
    return [f"{run}/" for run in refs.runs()]


@_offer
def runs_and_artifacts(incomplete: str) -> Iterable[str]:
    """For commands that take either."""
    return [*runs(incomplete), *artifacts(incomplete)]


@_offer
def inputs(incomplete: str) -> Iterable[str]:
    """INPUT=RUN/OUTPUT of any stage."""
    name, equals, reference = incomplete.partition("=")
    if equals:
        return [f"{name}={found}" for found in artifacts(reference)]
    return {f"{wanted.name}=" for row in stages.STAGES for wanted in row.consumes}


@_offer
def stage_names(incomplete: str) -> Iterable[str]:
    """Stages."""
    return stages.NAMES


@_offer
def recipes(incomplete: str) -> Iterable[str]:
    """Shipped recipes, and YAML files of the folder that is typed."""
    from pathlib import Path

    from flows.recipe import NAMES

    folder = incomplete.rpartition("/")[0]
    files = [*Path(folder or ".").glob("*.yaml"), *Path(folder or ".").glob("*.yml")]
    return [*NAMES, *map(str, files)]


@_offer
def settings(incomplete: str) -> Iterable[str]:
    """STAGE.KEY= once the stage is typed; before that, stages."""
    from flows.cli import tables

    name, dot, _ = incomplete.partition(".")
    if not dot:
        return [f"{name}." for name in stages.NAMES]
    return [f"{row['key']}=" for row in tables.settings_of(stages.stage(name))]
