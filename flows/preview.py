"""What would run, and why.

This is known before any work, because an artifact's id follows from settings and input ids alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError

import stages
from data_contracts import ConfigError, Identity, Store
from data_contracts.store.artifact import Manifest
from stages import Input, Stage
from stages.config import StageConfig
from stages.renamed_settings import stay_silent
from stages.run import identity_of

Status = Literal["up to date", "reuse", "build"]
TypeAndId = tuple[str, str]  # artifact type, id

MAX_VALUE_LENGTH = 40  # characters of a setting's value in a reason


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a run to come.

    Attributes:
        stage: The stage.
        config: Its settings.
        inputs: The artifact that each input takes, by the name of the input.
        identity: What the id of its result is made of.
        status: "up to date" if the run already has the result, "reuse" if the store has it but the
            run does not point at it yet, "build" if it has to be made.
        reasons: Why it is not up to date, for people.
    """

    stage: Stage
    config: StageConfig
    inputs: dict[str, TypeAndId]
    identity: Identity
    status: Status
    reasons: tuple[str, ...]

    @property
    def type_and_id(self) -> TypeAndId:
        """The artifact type and the id of its result."""
        return self.stage.produces, self.identity.id


def plan_run(
    store: Store, run: str, configs: Mapping[str, StageConfig], as_of: str | None = None
) -> list[PlannedStage]:
    """Plan every stage of the map, each with the results of the stages before it.

    Args:
        store: Where artifacts and refs are looked up.
        run: The name of the run.
        configs: The settings of each stage, by its name.
        as_of: The logical date, in ISO 8601.

    Raises:
        ConfigError: `as_of` is not a date.
    """
    return _plan(store, run, stages.STAGES, configs, bound={}, as_of=as_of)


def plan_stage(
    store: Store,
    run: str | None,
    stage: Stage,
    config: StageConfig,
    inputs: Mapping[str, str] | None = None,
    and_after: bool = False,
    as_of: str | None = None,
) -> list[PlannedStage]:
    """Plan one stage and, on request, every stage that depends on it.

    Args:
        store: Where artifacts and refs are looked up.
        run: The run that the stage takes its other inputs from, if there is one.
        stage: The stage.
        config: Its settings. Later stages keep those that they last had in this run.
        inputs: References to artifacts, such as "demo/tokenizer", by the name of the input.
        and_after: Whether to plan the stages that depend on the result, too.
        as_of: The logical date, in ISO 8601.

    Raises:
        ConfigError: The stage has no such input, an input is missing or of another type, or there
            is no run whose later stages could follow.
        ArtifactError: An input is missing from the store, or was changed.
        ContractError: The stage cannot read the contract of an input.
    """
    bound: dict[str, TypeAndId] = {}
    if run:
        bound = {output: ref.key for output, ref in store.refs.outputs(run).items()}
    for name, reference in (inputs or {}).items():
        taken = _input_called(stage, name, reference)
        artifact = store.find(reference)
        bound[taken.output] = artifact.artifact_type, artifact.id
    chosen, configs = [stage], {stage.name: config}
    if and_after:
        if run is None:
            raise ConfigError(
                "--and-after", "needs the run whose later stages are to follow", "add --name NAME"
            )
        for later in _stages_after(stage, bound):
            chosen.append(later)
            configs[later.name] = last_config(store, run, later)
    return _plan(store, run, chosen, configs, bound, as_of)


def _input_called(stage: Stage, name: str, reference: str) -> Input:
    found = stage.input(name)
    if found:
        return found
    for taken in stage.consumes:
        if taken.output == name:  # the name that a run has for it
            raise ConfigError(
                f"input {name!r}",
                f"stage {stage.name} has no input of this name; it takes {name} as {taken.name}",
                f"write {taken.name}={reference}",
            )
    names = ", ".join(taken.name for taken in stage.consumes) or "none"
    raise ConfigError(
        f"input {name!r}",
        f"stage {stage.name} has no input of this name",
        f"its inputs are: {names}",
    )


def _stages_after(stage: Stage, bound: Mapping[str, TypeAndId]) -> Iterator[Stage]:
    """Yield the later stages that depend on `stage`, if the run already has their outputs."""
    changed = {stage.output}
    for later in stages.STAGES[stages.STAGES.index(stage) + 1 :]:
        depends = any(taken.output in changed for taken in later.consumes)
        if depends and later.output in bound:
            changed.add(later.output)
            yield later


def last_config(store: Store, run: str, stage: Stage) -> StageConfig:
    """Return the settings with which `run` last made the output of a stage, or else the defaults.

    Raises:
        ConfigError: One of them is no longer allowed.
    """
    return stage.config_class.parse(last_settings(store, run, stage), stage.name)


def last_settings(store: Store, run: str, stage: Stage) -> dict[str, Any]:
    """Return the same as plain values, without keys that the stage no longer knows."""
    ref = store.refs.get(run, stage.output)
    if ref is None or ref.stage != stage.name:
        return {}
    settings = stage.config_class.with_names_of_today(ref.settings, stay_silent)
    try:
        config = stage.config_class.model_validate(settings, extra="ignore")
    except ValidationError:
        # A value is no longer allowed. It may still be changed; if not, whoever parses it says so.
        return settings
    return config.model_dump(mode="json")


def _last_date(store: Store, run: str | None, stage: Stage) -> str | None:
    """Return the logical date of the run's output: a run without a date keeps the one before it."""
    ref = store.refs.get(run, stage.output) if run else None
    return ref.as_of if ref else None


def _plan(
    store: Store,
    run: str | None,
    chosen: Iterable[Stage],
    configs: Mapping[str, StageConfig],
    bound: Mapping[str, TypeAndId],
    as_of: str | None,
) -> list[PlannedStage]:
    """Plan the chosen stages in their order.

    Args:
        store: Where artifacts and refs are looked up.
        run: The run that is to have the results.
        chosen: The stages.
        configs: Their settings, by name.
        bound: The artifacts that exist already, by output.
        as_of: The logical date.
    """
    planned: dict[str, PlannedStage] = {}  # by output
    bound = dict(bound)
    for stage in chosen:
        inputs = {
            taken.name: bound[taken.output] for taken in stage.consumes if taken.output in bound
        }
        _require_all_inputs(run, stage, inputs)
        for taken in stage.consumes:
            if taken.name in inputs and taken.output not in planned:
                _check_input(store, run, stage, taken, inputs[taken.name])
        date = as_of
        if not date and stage.reads_the_world:
            date = _last_date(store, run, stage)
        config = configs[stage.name]
        ids = {name: artifact_id for name, (_, artifact_id) in inputs.items()}
        identity = identity_of(stage, config, ids, date)
        planned_stage = PlannedStage(stage, config, inputs, identity, "build", ())
        planned[stage.output] = _with_status(store, run, planned_stage, planned)
        bound[stage.output] = planned_stage.type_and_id
    return list(planned.values())


def _require_all_inputs(run: str | None, stage: Stage, inputs: Mapping[str, TypeAndId]) -> None:
    missing = [
        taken.name for taken in stage.consumes if taken.name not in inputs and not taken.optional
    ]
    if not missing:
        return
    why = f"needs {', '.join(missing)}"
    if run:
        why += f", which run {run} does not have"
    arguments = " ".join(f"{name}=ARTIFACT" for name in missing)
    fix = f"groundup stage {stage.name} {arguments}, or name a finished run with --name"
    raise ConfigError(f"stage {stage.name}", why, fix)


def _check_input(store: Store, run: str | None, stage: Stage, taken: Input, key: TypeAndId) -> None:
    """Refuse an input that is missing, was changed, or is nothing that the stage can read."""
    artifact_type, artifact_id = key
    if artifact_type != taken.artifact_type:
        raise ConfigError(
            f"stage {stage.name}",
            f"{taken.name} must be {taken.artifact_type}, {artifact_type}/{artifact_id} is not",
            f"give an artifact of type {taken.artifact_type}",
        )
    artifact = store.open(artifact_type, artifact_id, verify=False)
    artifact.require(taken.major)
    if run:
        store.require_unchanged(artifact, f"{run}/{taken.output}")


def _with_status(
    store: Store, run: str | None, planned_stage: PlannedStage, planned: Mapping[str, PlannedStage]
) -> PlannedStage:
    """Return the stage with its status and, unless it is up to date, with the reasons."""
    output = planned_stage.stage.output
    exists = store.has(*planned_stage.type_and_id)
    ref = store.refs.get(run, output) if run else None
    if ref and ref.key == planned_stage.type_and_id:
        if exists:
            return replace(planned_stage, status="up to date")
        return replace(planned_stage, reasons=(f"{run}/{output} is missing from the store",))
    if ref is None:
        if run:
            reasons = [f"{run}/{output} does not exist yet"]
        else:
            reasons = ["it was made before" if exists else "it has not been made yet"]
    elif not store.has(*ref.key):
        reasons = [f"{run}/{output} is missing from the store"]
    else:
        manifest = store.open(*ref.key, verify=False).manifest
        reasons = _differences(planned_stage, manifest, planned)
    return replace(planned_stage, status="reuse" if exists else "build", reasons=tuple(reasons))


def _differences(
    planned_stage: PlannedStage, old: Manifest, planned: Mapping[str, PlannedStage]
) -> list[str]:
    """Return why the stage makes another artifact than the run has, one sentence a reason."""
    stage, new = planned_stage.stage, planned_stage.identity
    if old.stage != stage.name:
        return [f"was made by stage {old.stage}"]
    reasons = []
    if old.stage_version != new.stage_version:
        reasons.append(f"stage version {old.stage_version} → {new.stage_version}")
    if not new.contract.endswith(f" {old.contract}"):
        reasons.append(f"contract {old.contract} → {new.contract.split()[-1]}")
    if old.as_of != new.as_of:
        reasons.append(f"as of {old.as_of} → {new.as_of}")
    reasons += setting_differences(stage, old.config, new.config)
    for taken in stage.consumes:
        old_ref, new_key = old.inputs.get(taken.name), planned_stage.inputs.get(taken.name)
        old_id = old_ref.id if old_ref else None
        new_id = new_key[1] if new_key else None
        if old_id != new_id:
            maker = planned.get(taken.output)
            by = f" ({maker.stage.name})" if maker else ""
            reasons.append(f"{taken.output} changes{by}")
    return reasons + [
        f"{name} is no longer an input" for name in old.inputs if stage.input(name) is None
    ]


def setting_differences(stage: Stage, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describe every setting that differs, under its present name: "dedup.threshold 0.8 → 0.7".

    Args:
        stage: The stage that has the settings.
        old: Settings as they entered an artifact's id.
        new: The same of the artifact to come.
    """
    name_today = stage.config_class.name_today
    return [f"{stage.name}.{name_today(path)} {change}" for path, change in _changes(old, new, ())]


def _changes(old: Any, new: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield (path, what happened to the value) for every value that differs."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _changes(before, after, (*path, str(index)))
    elif isinstance(old, dict) and isinstance(new, dict):
        yield from _changes_of_mapping(old, new, path)
    elif old != new:
        yield ".".join(path), f"{_shortened(old)} → {_shortened(new)}"


def _changes_of_mapping(
    old: Mapping[str, Any], new: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    for key in old:
        if key in new:
            yield from _changes(old[key], new[key], (*path, key))
    for key in old:
        if key not in new:
            yield ".".join((*path, key)), f"{_shortened(old[key])} is gone"
    for key in new:
        if key not in old:
            yield ".".join((*path, key)), f"{_shortened(new[key])} is new"


def _shortened(value: Any) -> str:
    text = "unset" if value is None else str(value)
    if len(text) > MAX_VALUE_LENGTH:
        return text[: MAX_VALUE_LENGTH - 1] + "…"
    return text
