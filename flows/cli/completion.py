"""What the shell offers at TAB: runs, artifacts, stages, recipes and settings.

If anything goes wrong, it offers nothing.
"""

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

ASKED = "_GROUNDUP_COMPLETE"  # the variable with which the script of a shell asks

Candidates = Callable[[str], list[str]]


def answer_shells() -> None:
    """Let typer answer the shells. By itself it does so only if it may install its own script."""
    from typer.completion import completion_init

    completion_init()


def script(shell: str) -> str:
    """Return the script that a shell runs once, so that it asks groundup at TAB."""
    from typer.completion import get_completion_script

    return get_completion_script(prog_name="groundup", complete_var=ASKED, shell=shell)


def _completing(find: Callable[[str], Iterable[str]]) -> Candidates:
    """Keep the candidates that begin with what is typed.

    There are none if the store cannot be read: a message would end up in the line that is typed.
    """

    @wraps(find)
    def candidates(incomplete: str) -> list[str]:
        try:
            return sorted(one for one in find(incomplete) if one.startswith(incomplete))
        except Exception:
            return []

    return candidates


@_completing
def runs(incomplete: str) -> Iterable[str]:
    """Return the names of runs."""
    from flows.home import open_store

    return open_store().refs.runs()


@_completing
def artifacts(incomplete: str) -> Iterable[str]:
    """RUN/OUTPUT once the run is typed; before that, runs."""
    from flows.home import open_store

    name, slash, _ = incomplete.partition("/")
    refs = open_store().refs
    if slash:
        return [f"{name}/{output}" for output in refs.outputs(name)]
    return [f"{run}/" for run in refs.runs()]


@_completing
def runs_and_artifacts(incomplete: str) -> Iterable[str]:
    """Return the names of runs, and RUN/OUTPUT."""
    return [*runs(incomplete), *artifacts(incomplete)]


@_completing
def inputs(incomplete: str) -> Iterable[str]:
    """INPUT=RUN/OUTPUT of any stage."""
    name, equals, reference = incomplete.partition("=")
    if equals:
        return [f"{name}={artifact}" for artifact in artifacts(reference)]
    names = set()
    for stage in stages.STAGES:
        names |= {f"{taken.name}=" for taken in stage.consumes}
    return names


@_completing
def stage_names(incomplete: str) -> Iterable[str]:
    """Stages."""
    return stages.NAMES


@_completing
def recipes(incomplete: str) -> Iterable[str]:
    """Return the shipped recipes, and the YAML files in the folder that is typed."""
    from pathlib import Path

    from flows.recipe import NAMES

    folder = Path(incomplete.rpartition("/")[0] or ".")
    files = [*folder.glob("*.yaml"), *folder.glob("*.yml")]
    return [*NAMES, *map(str, files)]


@_completing
def settings(incomplete: str) -> Iterable[str]:
    """STAGE.KEY= once the stage is typed; before that, stages."""
    from flows.cli import tables

    name, dot, _ = incomplete.partition(".")
    if not dot:
        return [f"{name}." for name in stages.NAMES]
    return [f"{setting.key}=" for setting in tables.settings_of(stages.stage(name))]
