"""What would run, and why: known before any work, because an artifact's id follows from settings and input ids alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError

import stages
from data_contracts import ConfigError, Identity, Store
from data_contracts.store.artifact import Manifest
from stages import Stage
from stages.config import StageConfig
from stages.renamed_settings import stay_silent
from stages.run import identity_of

Status = Literal["up to date", "reuse", "build"]


@dataclass(frozen=True)
class Step:
    """One stage of a run to come. `inputs`: argument → (artifact_type, id). `reasons`: why it is not up to date, for people.

    up to date: the name already points at this result. reuse: the result exists, the name does not point at it yet.
    """

    stage: Stage
    config: StageConfig
    inputs: dict[str, tuple[str, str]]
    identity: Identity
    status: Status
    reasons: tuple[str, ...]

    @property
    def artifact_key(self) -> tuple[str, str]:
        return self.stage.produces, self.identity.id


def whole(
    store: Store, name: str, configs: Mapping[str, StageConfig], as_of: str | None = None
) -> list[Step]:
    """Every stage of the map, each fed by the ones before it."""
    return _steps(store, name, stages.STAGES, configs, bound={}, as_of=as_of)


def one(
    store: Store,
    name: str | None,
    stage: Stage,
    config: StageConfig,
    inputs: Mapping[str, str] | None = None,
    and_after: bool = False,
    as_of: str | None = None,
) -> list[Step]:
    """One stage with `config`, fed by `inputs` (argument → artifact) and else by what `name` holds; and what follows, if asked.

    Later stages keep the settings that they had last under this name.
    """
    bound = (
        {output: (p.artifact_type, p.id) for output, p in store.refs.outputs(name).items()}
        if name
        else {}
    )
    for argument, reference in (inputs or {}).items():
        wanted = next((i for i in stage.consumes if i.name == argument), None)
        if wanted is None:
            known = ", ".join(i.name for i in stage.consumes) or "none"
            raise ConfigError(
                f"input {argument!r}",
                f"stage {stage.name} does not take it",
                f"its inputs are: {known}",
            )
        found = store.find(reference)
        bound[wanted.output] = found.artifact_type, found.id
    chosen, configs = [stage], {stage.name: config}
    if and_after:
        if name is None:
            raise ConfigError(
                "--and-after", "needs a name whose later stages are to follow", "add --name NAME"
            )
        changed = {stage.output}
        for row in stages.STAGES[stages.STAGES.index(stage) + 1 :]:
            if row.output in bound and any(i.output in changed for i in row.consumes):
                chosen.append(row)
                changed.add(row.output)
                configs[row.name] = last_config(store, name, row)
    return _steps(store, name, chosen, configs, bound, as_of)


def last_config(store: Store, name: str, stage: Stage) -> StageConfig:
    """The settings with which `name` last made what this stage makes; the defaults if it never did."""
    return stage.config_class.parse(last_settings(store, name, stage), stage.name)


def last_date(store: Store, name: str | None, stage: Stage) -> str | None:
    """The logical date of what `name` means, so that a run without a date does not undo one that had one."""
    ref = store.refs.get(name, stage.output) if name else None
    return ref.as_of if ref else None


def last_settings(store: Store, name: str, stage: Stage) -> dict[str, Any]:
    """The same as plain values; keys that the stage no longer knows are left out."""
    ref = store.refs.get(name, stage.output)
    if ref is None or ref.stage != stage.name:
        return {}
    settings = stage.config_class.with_names_of_today(ref.settings, stay_silent)
    try:
        return stage.config_class.model_validate(settings, extra="ignore").model_dump(mode="json")
    except ValidationError:  # a value that is no longer allowed: whoever uses the settings is told, unless it is changed first
        return settings


def _steps(
    store: Store,
    name: str | None,
    chosen: Iterable[Stage],
    configs: Mapping[str, StageConfig],
    bound: dict[str, tuple[str, str]],
    as_of: str | None,
) -> list[Step]:
    steps: list[Step] = []
    made_here: set[tuple[str, str]] = set()
    bound = dict(bound)
    for stage in chosen:
        inputs = {i.name: bound[i.output] for i in stage.consumes if i.output in bound}
        missing = [i for i in stage.consumes if i.name not in inputs and not i.optional]
        if missing:
            what = ", ".join(i.name for i in missing)
            fix = (
                f"groundup stage {stage.name} "
                + " ".join(f"{i.name}=ARTIFACT" for i in missing)
                + "   or name a finished run with --name"
            )
            raise ConfigError(
                f"stage {stage.name}",
                f"needs {what}" + (f", which {name} does not hold" if name else ""),
                fix,
            )
        _check_inputs(
            store,
            name,
            stage,
            {argument: made for argument, made in inputs.items() if made not in made_here},
        )
        date = as_of or (last_date(store, name, stage) if stage.reads_the_world else None)
        identity = identity_of(
            stage,
            configs[stage.name],
            {argument: made for argument, (_, made) in inputs.items()},
            date,
        )
        step = Step(stage, configs[stage.name], inputs, identity, "build", ())
        steps.append(_judged(store, name, step, {s.stage.output: s for s in steps}))
        bound[stage.output] = step.artifact_key
        made_here.add(step.artifact_key)
    return steps


def _check_inputs(
    store: Store, name: str | None, stage: Stage, inputs: Mapping[str, tuple[str, str]]
) -> None:
    """Refuse, before any work, what is not there, was changed, is another artifact type, or has a contract that the stage cannot read."""
    for wanted in stage.consumes:
        if wanted.name not in inputs:
            continue
        artifact_type, given = inputs[wanted.name]
        if artifact_type != wanted.artifact_type:
            raise ConfigError(
                f"stage {stage.name}",
                f"{wanted.name} must be {wanted.artifact_type}, {artifact_type}/{given} is not",
                f"give a {wanted.artifact_type}",
            )
        artifact = store.open(artifact_type, given, verify=False)
        artifact.require(wanted.major)
        if name:
            store.require_unchanged(artifact, f"{name}/{wanted.output}")


def _judged(store: Store, name: str | None, step: Step, before: Mapping[str, Step]) -> Step:
    output, exists = step.stage.output, store.has(*step.artifact_key)
    ref = store.refs.get(name, output) if name else None
    if ref and (ref.artifact_type, ref.id) == step.artifact_key:
        return (
            replace(step, status="up to date")
            if exists
            else replace(step, reasons=(f"{name}/{output} is missing from the store",))
        )
    if ref is None:
        reasons = (
            [f"{name}/{output} does not exist yet"]
            if name
            else ["made before" if exists else "not made yet"]
        )
    elif not store.has(ref.artifact_type, ref.id):
        reasons = [f"{name}/{output} is missing from the store"]
    else:
        reasons = _differences(
            step, store.open(ref.artifact_type, ref.id, verify=False).manifest, before
        )
    return replace(step, status="reuse" if exists else "build", reasons=tuple(reasons))


def _differences(step: Step, old: Manifest, before: Mapping[str, Step]) -> list[str]:
    """Why the step makes another artifact than the run has now, a sentence for each reason."""
    stage, new = step.stage, step.identity
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
    for wanted in stage.consumes:
        old_ref, new_key = old.inputs.get(wanted.name), step.inputs.get(wanted.name)
        old_id = old_ref.id if old_ref else None
        new_id = new_key[1] if new_key else None
        if old_id != new_id:
            maker = before.get(wanted.output)
            by = f" ({maker.stage.name})" if maker else ""
            reasons.append(f"{wanted.output} changes{by}")
    dropped = [name for name in old.inputs if stage.input(name) is None]
    return reasons + [f"{name} is no longer taken" for name in dropped]


def setting_differences(stage: Stage, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """ "dedup.threshold 0.8 → 0.7" for every setting that differs, under the names of today.

    Args:
        stage: Whose settings.
        old: Settings as they entered an artifact's id.
        new: The same of the artifact to come.
    """
    name_today = stage.config_class.name_today
    return [f"{stage.name}.{name_today(path)} {change}" for path, change in _changes(old, new, ())]


def _changes(old: Any, new: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(path of the value, what happened to it) for every leaf that differs."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _changes(before, after, (*path, str(index)))
    elif isinstance(old, dict) and isinstance(new, dict):
        for key in [key for key in old if key in new]:
            yield from _changes(old[key], new[key], (*path, key))
        for key in [key for key in old if key not in new]:
            yield ".".join((*path, key)), f"{_short(old[key])} is no longer there"
        for key in [key for key in new if key not in old]:
            yield ".".join((*path, key)), f"{_short(new[key])} is new"
    elif old != new:
        yield ".".join(path), f"{_short(old)} → {_short(new)}"


def _short(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 40 else text[:39] + "…"
