"""Runs started from the shell: the whole pipeline under Prefect, or single stages without it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data_contracts import Artifact, ConfigError, GroundupError, Store
from flows import recipe
from flows.cli import console
from flows.cli.console import out
from flows.home import home
from flows.prefect_host import server
from flows.preview import Step
from flows.recipe import Recipe
from flows.settings import absolute
from stages.run import run_stage


@dataclass(frozen=True)
class Built:
    """A finished run: what `name` holds now, how long it took, and how much of that was the stages' own work."""

    name: str
    artifacts: dict[str, str]
    seconds: float
    stage_seconds: float
    stages_run: int

    @property
    def orchestration_share(self) -> float:
        """Share of the time in which no stage worked: server start, flows, states, pages."""
        return 1 - self.stage_seconds / self.seconds if self.stages_run else 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "artifacts": self.artifacts,
            "seconds": round(self.seconds, 1),
            "stages_run": self.stages_run,
            "orchestration_share": round(self.orchestration_share, 4),
        }


def build(
    store: Store,
    what: Recipe,
    name: str,
    overrides: list[str],
    as_of: str | None,
    steps: Sequence[Step],
) -> Built:
    """Run the pipeline as a Prefect flow, on the server that is up or on one for the length of this run.

    If every stage is up to date, nothing is started at all.
    """
    started = time.monotonic()
    finished: list[console.Finished] = []
    if any(step.status != "up to date" for step in steps):
        with console.watched() as finished:
            _run_flow(what, name, overrides, as_of)
    else:
        store.follow(name, absolute(what.name), overrides)
    artifacts = {
        output: f"{p.artifact_type}/{p.id}" for output, p in store.refs.outputs(name).items()
    }
    made = [one for one in finished if one.made]
    return Built(
        name, artifacts, time.monotonic() - started, sum(one.seconds for one in finished), len(made)
    )


def _run_flow(what: Recipe, name: str, overrides: list[str], as_of: str | None) -> None:
    os.environ.setdefault(
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL"
    )  # the terminal shows progress; logs are in the UI
    # prefect reads its settings when it is imported, so not before the server is chosen
    with server.running_server(home(), "flows.build_llm") as started_here:
        from prefect.logging.handlers import APILogHandler
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        from flows.build_llm import build_llm

        if not started_here:
            out.print(f"[dim]watch it at {server.sign_in_address(home())}[/]")
        chosen: dict[str, Any] = (
            {"recipe": what.name}
            if what.name in recipe.NAMES
            else {"recipe_file": absolute(what.name)}
        )
        try:
            # heartbeats tell a server of workers that died; here a person sees it, and each would cost a second per stage
            with (
                temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
                recipe.resolved(absolute(what.name), overrides, what),
            ):
                build_llm(**chosen, name=name, overrides=overrides, as_of=as_of or "")
        except Exception as error:
            if isinstance(error, GroundupError) or server.is_up():
                raise
            fix = "run the same command again: what is finished is kept"
            raise GroundupError(
                f"the Prefect server at {server.ui_url()}",
                f"does not answer any more ({error})",
                fix,
            ) from error
        finally:
            APILogHandler().flush()  # the server may be gone when the interpreter ends


def alone(store: Store, steps: Sequence[Step], name: str | None) -> list[Artifact]:
    """Run planned steps one after another, in this process, without Prefect."""
    made = []
    with console.watched():
        for step in steps:
            inputs = {
                argument: store.open(*reference, verify=False)
                for argument, reference in step.inputs.items()
            }
            with console.reporting(step.stage.name) as report:
                artifact, new = run_stage(
                    store, step.stage, step.config, inputs, report, step.identity.as_of
                )
                console.finish(step.stage.name, artifact, new)
            if name:
                store.point(
                    name,
                    step.stage.output,
                    artifact,
                    run=f"groundup stage {step.stage.name}",
                    made=new,
                )
            made.append(artifact)
    return made


def parse_input(text: str) -> tuple[str, str]:
    """("raw_documents", "demo/raw_documents") of "raw_documents=demo/raw_documents"."""
    name, equals, reference = text.partition("=")
    if not (name and equals and reference):
        raise ConfigError(
            f"input {text!r}",
            "is not of the form ROLE=ARTIFACT",
            "write e.g. raw_documents=demo/raw_documents",
        )
    return name, reference
