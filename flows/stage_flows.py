"""One Prefect flow per stage: started from the UI, called by the pipeline, and nothing in it but the wrapping."""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Callable
from typing import Any, Protocol

from prefect import State, flow
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field, create_model

import stages
from data_contracts import Artifact, Interrupted
from data_contracts.credentials import nothing_secret
from flows import preview
from flows.cli import console
from flows.home import open_store
from flows.prefect_host import run_page
from flows.settings import filled_in, settings_for
from flows.working_folder import enter_folder
from stages import Stage
from stages.run import run_stage

_STRICT = ConfigDict(extra="forbid")  # a misspelt setting is an error, not ignored


def changes_model(config: type[BaseModel]) -> type[BaseModel]:
    """Settings with every field optional, groups of settings too, for the form: an empty field keeps what it was."""
    fields: dict[str, Any] = {}
    for name, field in config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            group = changes_model(field.annotation)
            fields[name] = (group, Field(group(), description=field.description))
        else:
            annotation: Any = field.annotation
            fields[name] = (annotation | None, Field(None, description=field.description))
    return create_model(
        config.__name__.replace("Config", "") + "Changes", __config__=_STRICT, **fields
    )


def inputs_model(stage: Stage) -> type[BaseModel]:
    """One optional text per input of the stage."""
    fields: dict[str, Any] = {
        i.name: (str | None, Field(None, description=f"{i.artifact_type}; empty: NAME/{i.output}"))
        for i in stage.consumes
    }
    return create_model(
        stage.config_class.__name__.replace("Config", "Inputs"), __config__=_STRICT, **fields
    )


def make(step: preview.Step, name: str) -> State[str]:
    """Run one step, let the name point at the result, and fill the run's page. The state carries "artifact_type/id"."""
    store = open_store()
    inputs = {
        argument: store.open(*reference, verify=False)
        for argument, reference in step.inputs.items()
    }
    with run_page.reporting(step.stage.name) as report:
        try:
            with nothing_secret():  # an error's whole chain goes into Prefect's database; a proxy's password may be in it
                artifact, made_now = run_stage(
                    store, step.stage, step.config, inputs, report, step.identity.as_of
                )
        except Interrupted as stop:
            report.note(f"{stop.what} {stop.why}")
            raise _signal() from None
        console.finish(step.stage.name, artifact, made_now)
    store.point(
        name, step.stage.output, artifact, run=f"{flow_run.name or step.stage.name}", made=made_now
    )
    run_page.show_stage(artifact, f"{name}/{step.stage.output}", store)
    if made_now:
        return Completed(message=console.headline(artifact), data=reference(artifact))
    return Completed(
        name="UpToDate",
        message=f"{name}/{step.stage.output} was made before",
        data=reference(artifact),
    )


def _signal() -> BaseException:
    """The wish to stop that a stage has granted, for Prefect, which would take an error for a fault of the code.

    In a process of a worker it was a termination: the run is then cancelled, if that is what a person asked for in the UI.
    """
    return (
        TerminationSignal(signal.SIGTERM)
        if "PREFECT__FLOW_RUN_ID" in os.environ
        else KeyboardInterrupt()
    )


def reference(artifact: Artifact) -> str:
    return f"{artifact.artifact_type}/{artifact.id}"


class StageFlow(Protocol):
    """A Prefect flow that runs one stage and returns "artifact_type/id" of what it made or found."""

    name: str

    def __call__(self, *, name: str, **settings: Any) -> str: ...


def _stage_flow(stage: Stage) -> StageFlow:
    """The stage alone, with a form for all of its settings."""

    def run(
        name: str,
        recipe: str,
        overrides: list[str],
        settings: BaseModel,
        inputs: BaseModel,
        and_after: bool,
        as_of: str,
    ) -> State[str]:
        enter_folder()
        config = settings_for(
            open_store(),
            stage,
            name,
            recipe or None,
            [*filled_in(settings, stage.name), *overrides],
        )
        given = {key: value for key, value in inputs.model_dump().items() if value}
        step, *after = preview.one(
            open_store(), name, stage, config, given, and_after, as_of or None
        )
        state = make(step, name)
        for later in after:
            SUBFLOWS[later.stage.name](
                name=name,
                settings=later.config.model_dump(mode="json"),
                inputs={argument: key[1] for argument, key in later.inputs.items()},
                as_of=as_of,
            )
        return state

    run.__doc__ = _form_text(stage)
    return _as_flow(stage, _signed(run, stage))


def _subflow(stage: Stage) -> StageFlow:
    """The stage within a whole run, which has resolved the settings of all stages before the first one starts."""

    def run(name: str, settings: dict[str, Any], inputs: dict[str, str], as_of: str) -> State[str]:
        config = stage.config_class.parse(settings, stage.name)
        (step,) = preview.one(open_store(), name, stage, config, inputs, as_of=as_of or None)
        return make(step, name)

    run.__doc__ = f"Makes {stage.produces}, as a part of a whole run."
    return _as_flow(stage, run)


def _as_flow(stage: Stage, run: Callable[..., Any]) -> StageFlow:
    found: Any = flow(
        name=stage.name.replace("_", "-"),
        flow_run_name="{name} " + stage.name,
        validate_parameters=True,
    )(run)
    return found


def _signed(run: Callable[..., Any], stage: Stage) -> Callable[..., Any]:
    """Give the function the signature that the form is made from; types of settings and inputs are the stage's own."""
    wanted: dict[str, tuple[Any, Any]] = {
        "name": (str, "demo"),
        "recipe": (str, ""),
        "overrides": (list[str], []),
        "settings": (changes := changes_model(stage.config_class), changes()),
        "inputs": (inputs := inputs_model(stage), inputs()),
        "and_after": (bool, False),
        "as_of": (str, ""),
    }
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        inspect.Parameter(n, kind, default=default, annotation=annotation)
        for n, (annotation, default) in wanted.items()
    ]
    run.__signature__ = inspect.Signature(parameters, return_annotation=State)  # type: ignore[attr-defined]
    run.__annotations__ = {n: annotation for n, (annotation, _) in wanted.items()}
    run.__name__ = run.__qualname__ = stage.name
    return run


def _form_text(stage: Stage) -> str:
    takes = ", ".join(i.name for i in stage.consumes if not i.optional) or "what its settings name"
    return f"""Makes {stage.produces} from {takes}.

    Args:
        name: What the result is called: NAME/{stage.output}. Inputs come from there, too.
        recipe: Where settings come from; empty: the last run under this name.
        overrides: Single settings as text, e.g. key=value
        settings: Single settings; those left empty stay as they are.
        inputs: Other artifacts to work on.
        and_after: Rebuild everything that depends on the result, too, with the settings it had.
        as_of: A date that makes another result, for stages that read the changing world.
    """


FLOWS: dict[str, StageFlow] = {row.name: _stage_flow(row) for row in stages.STAGES}
SUBFLOWS: dict[str, StageFlow] = {row.name: _subflow(row) for row in stages.STAGES}


def __getattr__(name: str) -> StageFlow:
    """Each flow under the name of its stage: deployments name them so, as flows/stage_flows.py:crawl."""
    if name in FLOWS:
        return FLOWS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
