"""One Prefect flow per stage, and nothing in it but the wrapping.

`FLOWS` are started from the UI and have a form. `SUBFLOWS` are parts of a whole run.
"""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from prefect import State, flow
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field, create_model

import stages
from data_contracts import Interrupted
from data_contracts.credentials import nothing_secret
from flows import preview
from flows.cli import console
from flows.home import open_store
from flows.prefect_host import run_page
from flows.settings import changes_in_form, settings_for
from flows.working_folder import enter_folder
from stages import Stage
from stages.config import StageConfig
from stages.run import run_stage

_STRICT = ConfigDict(extra="forbid")  # a misspelt setting is an error


def changes_model(config: type[BaseModel]) -> type[BaseModel]:
    """Make the model of a form for changes of settings.

    Every field is optional, and so is every field of a group of settings. An empty field changes
    nothing.
    """
    fields: dict[str, Any] = {}
    for name, field in config.model_fields.items():
        annotation: Any = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            group = changes_model(annotation)
            fields[name] = (group, Field(group(), description=field.description))
        else:
            fields[name] = (annotation | None, Field(None, description=field.description))
    name = config.__name__.replace("Config", "") + "Changes"
    return create_model(name, __config__=_STRICT, **fields)


def inputs_model(stage: Stage) -> type[BaseModel]:
    """Make the model of a form with one optional text for each input of the stage."""
    fields: dict[str, Any] = {}
    for taken in stage.consumes:
        description = f"{taken.artifact_type}; if empty, NAME/{taken.output}"
        fields[taken.name] = (str | None, Field(None, description=description))
    name = stage.config_class.__name__.replace("Config", "Inputs")
    return create_model(name, __config__=_STRICT, **fields)


def run_planned(planned_stage: preview.PlannedStage, run: str) -> State[str]:
    """Run one planned stage, point the run's ref at the result, and fill the page of the flow run.

    Returns:
        A completed state that carries "artifact_type/id". Its name is "UpToDate" if the result
        existed before.

    Raises:
        TerminationSignal: A person cancelled the flow run of a worker.
        KeyboardInterrupt: A person stopped the flow run in a terminal.
    """
    store = open_store()
    inputs = {}
    for name, key in planned_stage.inputs.items():
        inputs[name] = store.open(*key, verify=False)
    with run_page.reporting(planned_stage.stage.name) as report:
        try:
            # Prefect keeps the whole chain of an error. A proxy's password may be in it.
            with nothing_secret():
                artifact, made_now = run_stage(
                    store,
                    planned_stage.stage,
                    planned_stage.config,
                    inputs,
                    report,
                    planned_stage.identity.as_of,
                )
        except Interrupted as stop:
            report.note(f"{stop.what} {stop.why}")
            raise _prefects_interruption() from None
        console.finish(planned_stage.stage.name, artifact, made_now)
    output = planned_stage.stage.output
    flow_run_name = str(flow_run.name or planned_stage.stage.name)
    store.point(run, output, artifact, made_by=flow_run_name, made=made_now)
    run_page.show_stage(artifact, f"{run}/{output}", store)
    reference = f"{artifact.artifact_type}/{artifact.id}"
    if made_now:
        return Completed(message=console.headline(artifact), data=reference)
    return Completed(name="UpToDate", message=f"{run}/{output} is up to date", data=reference)


def _prefects_interruption() -> BaseException:
    """Return the exception by which Prefect recognises a stop on request, not a fault of the code.

    In a process of a worker it was a termination. Prefect then marks the run as cancelled, if a
    person asked for that in the UI.
    """
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        return TerminationSignal(signal.SIGTERM)
    return KeyboardInterrupt()


class StageFlow(Protocol):
    """A Prefect flow that runs one stage and returns "artifact_type/id" of its result."""

    name: str

    def __call__(self, *, name: str, **parameters: Any) -> str: ...


def _stage_flow(stage: Stage) -> StageFlow:
    """Return the flow of the stage alone, with a form for all of its settings."""

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
        store = open_store()
        changes = [*changes_in_form(settings, stage.name), *overrides]
        config = settings_for(store, stage, name, recipe or None, changes)
        chosen = {key: value for key, value in inputs.model_dump().items() if value}
        first, *later = preview.plan_stage(
            store, name, stage, config, chosen, and_after, as_of or None
        )
        state = run_planned(first, name)
        for planned_stage in later:
            references = {name: "/".join(key) for name, key in planned_stage.inputs.items()}
            SUBFLOWS[planned_stage.stage.name](
                name=name, settings=planned_stage.config, inputs=references, as_of=as_of
            )
        return state

    changes, inputs = changes_model(stage.config_class), inputs_model(stage)
    run.__doc__ = _form_text(stage)
    parameters = {
        "name": (str, "demo"),
        "recipe": (str, ""),
        "overrides": (list[str], []),
        "settings": (changes, changes()),
        "inputs": (inputs, inputs()),
        "and_after": (bool, False),
        "as_of": (str, ""),
    }
    return _as_flow(stage, run, parameters)


def _subflow(stage: Stage) -> StageFlow:
    """Return the flow of the stage within a whole run.

    The run has resolved the settings of all stages before the first one starts, so the stage takes
    its configuration as it is.
    """

    def run(name: str, settings: StageConfig, inputs: dict[str, str], as_of: str) -> State[str]:
        store = open_store()
        (planned_stage,) = preview.plan_stage(
            store, name, stage, settings, inputs, as_of=as_of or None
        )
        return run_planned(planned_stage, name)

    required = inspect.Parameter.empty
    run.__doc__ = f"Makes {stage.produces}, as a part of a whole run."
    parameters = {
        "name": (str, required),
        "settings": (stage.config_class, required),
        "inputs": (dict[str, str], required),
        "as_of": (str, required),
    }
    return _as_flow(stage, run, parameters)


def _as_flow(
    stage: Stage, run: Callable[..., Any], parameters: Mapping[str, tuple[Any, Any]]
) -> StageFlow:
    """Wrap `run` for Prefect, which validates its parameters and makes the form of them.

    Args:
        stage: The stage that it runs.
        run: The function.
        parameters: (type, default) of each parameter. Types of settings and inputs are the stage's.
    """
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = [
        inspect.Parameter(name, kind, default=default, annotation=annotation)
        for name, (annotation, default) in parameters.items()
    ]
    function: Any = run
    function.__signature__ = inspect.Signature(signature, return_annotation=State)
    function.__annotations__ = {name: annotation for name, (annotation, _) in parameters.items()}
    function.__name__ = function.__qualname__ = stage.name
    wrapped: Any = flow(
        name=stage.name.replace("_", "-"),
        flow_run_name="{name} " + stage.name,
        validate_parameters=True,
    )(run)
    return wrapped


def _form_text(stage: Stage) -> str:
    required = [taken.name for taken in stage.consumes if not taken.optional]
    sources = ", ".join(required) or "what its settings name"
    return f"""Makes {stage.produces} from {sources}.

    Args:
        name: The run. It gets the result as NAME/{stage.output}, and has the inputs.
        recipe: Where settings come from; if empty, from the last time in this run.
        overrides: Single settings as text, e.g. key=value
        settings: Single settings. Those that are left empty stay as they are.
        inputs: Other artifacts to work on.
        and_after: Whether to rebuild everything that depends on the result, too, with the settings
            that it had.
        as_of: A date that makes another result, for stages that read the changing world.
    """


FLOWS: dict[str, StageFlow] = {row.name: _stage_flow(row) for row in stages.STAGES}
SUBFLOWS: dict[str, StageFlow] = {row.name: _subflow(row) for row in stages.STAGES}


def __getattr__(name: str) -> StageFlow:
    """Return a flow by the name of its stage, as deployments do: flows/stage_flows.py:crawl."""
    if name in FLOWS:
        return FLOWS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
