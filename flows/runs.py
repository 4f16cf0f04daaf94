"""Runs that start in the shell: the whole pipeline under Prefect, or single stages without it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from data_contracts import Artifact, ConfigError, GroundupError, Store
from flows import recipe as recipes
from flows.cli import console
from flows.cli.console import out
from flows.home import current_home
from flows.prefect_host import server
from flows.preview import PlannedStage
from flows.recipe import Recipe
from flows.settings import absolute_reference
from stages.run import run_stage


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        name: The run.
        artifacts: "artifact_type/id" of everything that it has, by output.
        seconds: How long it took.
        stage_seconds: How much of that the stages themselves took.
        stages_run: How many stages made something.
    """

    name: str
    artifacts: dict[str, str]
    seconds: float
    stage_seconds: float
    stages_run: int

    @property
    def orchestration_share(self) -> float:
        """The share of the time in which no stage worked: server start, flows, states, pages."""
        if not self.stages_run:
            return 0.0
        return 1 - self.stage_seconds / self.seconds

    def as_json(self) -> dict[str, Any]:
        """Return the run for `--json`."""
        return {
            "name": self.name,
            "artifacts": self.artifacts,
            "seconds": round(self.seconds, 1),
            "stages_run": self.stages_run,
            "orchestration_share": round(self.orchestration_share, 4),
        }


def build(
    store: Store,
    recipe: Recipe,
    name: str,
    overrides: list[str],
    as_of: str | None,
    planned: Sequence[PlannedStage],
) -> FinishedRun:
    """Run the pipeline as a Prefect flow, on the server that is up or on one for this run alone.

    If every stage is up to date, nothing is started.

    Args:
        store: Where the run is kept.
        recipe: The recipe with the overrides, as it was resolved for the preview.
        name: The run.
        overrides: The settings that differ from the recipe.
        as_of: The logical date, in ISO 8601.
        planned: The preview.
    """
    started = time.monotonic()
    finished: list[console.FinishedStage] = []
    if any(planned_stage.status != "up to date" for planned_stage in planned):
        with console.watched() as finished:
            _run_flow(recipe, name, overrides, as_of)
    else:
        store.remember_recipe(name, absolute_reference(recipe.name), overrides, recipe.settings())
    return FinishedRun(
        name=name,
        artifacts={
            output: f"{ref.artifact_type}/{ref.id}"
            for output, ref in store.refs.outputs(name).items()
        },
        seconds=time.monotonic() - started,
        stage_seconds=sum(stage.seconds for stage in finished),
        stages_run=sum(stage.made for stage in finished),
    )


def _run_flow(recipe: Recipe, name: str, overrides: list[str], as_of: str | None) -> None:
    # The terminal shows progress; Prefect's logs are in the UI.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    # Prefect reads its settings when it is imported, so not before the server is chosen.
    with server.running_server(current_home(), "flows.build_llm") as started_here:
        from prefect.logging.handlers import APILogHandler
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        from flows.build_llm import build_llm

        if not started_here:
            out.print(f"[dim]watch it at {server.sign_in_address(current_home())}[/]")
        reference = absolute_reference(recipe.name)
        key = "recipe" if recipe.name in recipes.NAMES else "recipe_file"
        chosen: dict[str, Any] = {key: reference}
        # Heartbeats show a server that a worker died. Here a person sees it, and each heartbeat
        # would cost a second per stage.
        without_heartbeats = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
        try:
            with without_heartbeats, recipes.already_resolved(reference, overrides, recipe):
                build_llm(**chosen, name=name, overrides=overrides, as_of=as_of or "")
        except Exception as error:
            if isinstance(error, GroundupError) or server.is_up():
                raise
            raise GroundupError(
                f"the Prefect server at {server.ui_url()}",
                f"does not answer any more ({error})",
                "run the same command again: what is finished is kept",
            ) from error
        finally:
            APILogHandler().flush()  # the server may be gone when the interpreter ends


def run_stages(store: Store, planned: Sequence[PlannedStage], name: str | None) -> list[Artifact]:
    """Run planned stages one after another, in this process, without Prefect.

    Args:
        store: Where the results go.
        planned: The stages, in their order.
        name: The run that gets the results, if there is one.

    Returns:
        The result of each stage, also if it existed before.
    """
    artifacts = []
    with console.watched():
        for planned_stage in planned:
            artifact, made_now = _run_one(store, planned_stage)
            if name:
                made_by = f"groundup stage {planned_stage.stage.name}"
                store.point(
                    name, planned_stage.stage.output, artifact, made_by=made_by, made=made_now
                )
            artifacts.append(artifact)
    return artifacts


def _run_one(store: Store, planned_stage: PlannedStage) -> tuple[Artifact, bool]:
    inputs = {}
    for name, key in planned_stage.inputs.items():
        inputs[name] = store.open(*key, verify=False)
    with console.reporting(planned_stage.stage.name) as report:
        artifact, made_now = run_stage(
            store,
            planned_stage.stage,
            planned_stage.config,
            inputs,
            report,
            planned_stage.identity.as_of,
        )
        console.finish(planned_stage.stage.name, artifact, made_now)
    return artifact, made_now


def parse_inputs(texts: Iterable[str]) -> dict[str, str]:
    """Parse inputs as they are typed: "raw_documents=demo/raw_documents".

    Returns:
        The reference of each input, by its name.

    Raises:
        ConfigError: One has another form, or an input is given twice.
    """
    references: dict[str, str] = {}
    for text in texts:
        name, equals, reference = text.partition("=")
        if not (name and equals and reference):
            raise ConfigError(
                f"input {text!r}",
                "is not of the form INPUT=ARTIFACT",
                "write e.g. raw_documents=demo/raw_documents",
            )
        if name in references:
            raise ConfigError(
                f"input {name!r}",
                f"is given twice: {references[name]} and {reference}",
                "give it once",
            )
        references[name] = reference
    return references
