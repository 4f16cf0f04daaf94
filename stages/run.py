"""One stage against one store: the plain function that every flow, test and command uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime

from data_contracts import (
    Artifact,
    ConfigError,
    ContractError,
    Draft,
    Identity,
    Store,
    current,
    frozen,
)
from stages import Stage
from stages.config import StageConfig
from stages.report import Report


def identity_of(
    stage: Stage, config: StageConfig, inputs: Mapping[str, str], as_of: str | None = None
) -> Identity:
    """What the stage's result would be, for these settings and input ids. Needs none of the inputs to exist.

    as_of: the logical date, ISO 8601. Raises ConfigError if it is none, ContractError if a contract is not the released one or not
    the one that the stage reads.
    """
    frozen.require(stage.produces)
    for wanted in stage.consumes:
        frozen.require(wanted.artifact_type)
        if (written := current(wanted.artifact_type).version).major != wanted.major:
            why = f"reads {wanted.artifact_type} {wanted.major}.x, and {wanted.artifact_type} is now at {written}"
            raise ContractError(
                f"stage {stage.name}",
                why,
                "adapt the stage, and say in stages/__init__.py what it reads",
            )
    try:
        datetime.fromisoformat(as_of or "2026-01-31")
    except ValueError:
        raise ConfigError(
            f"--as-of {as_of}", "is not a date", "write e.g. --as-of 2026-01-31"
        ) from None
    return Identity(
        stage=stage.name,
        stage_version=stage.version,
        contract=f"{stage.produces} {current(stage.produces).version}",
        config=config.identity(),
        inputs=dict(inputs),
        as_of=as_of if stage.reads_the_world else None,
    )


def run_stage(
    store: Store,
    stage: Stage,
    config: StageConfig,
    inputs: Mapping[str, Artifact],
    report: Report | None = None,
    as_of: str | None = None,
) -> tuple[Artifact, bool]:
    """The artifact that the stage makes of `inputs`, and whether it was made now (False: it was there already).

    Inputs are verified against their manifests and contract versions before any work; those that are files (checkpoints, tokenizers)
    against the rules of their contracts too, since libraries believe what such files say.
    """
    for wanted in stage.consumes:
        if wanted.name not in inputs:
            if wanted.optional:
                continue
            fix = f"groundup stage {stage.name} {wanted.name}=NAME/{wanted.output}"
            raise ConfigError(f"stage {stage.name}", f"needs {wanted.name}", fix)
        given = inputs[wanted.name]
        if given.artifact_type != wanted.artifact_type:
            raise ConfigError(
                f"stage {stage.name}",
                f"{wanted.name} must be {wanted.artifact_type}, {given} is not",
                f"give a {wanted.artifact_type}",
            )
    identity = identity_of(
        stage, config, {name: artifact.id for name, artifact in inputs.items()}, as_of
    )

    told = report or Report()

    def make(draft: Draft) -> dict[str, object]:
        for wanted in stage.consumes:
            if wanted.name in inputs:
                if note := inputs[wanted.name].require(wanted.major):
                    told.note(note)
                inputs[wanted.name].verify()
                inputs[wanted.name].check_files()
        return asdict(stage.function(config, **inputs, out=draft, report=told))

    return store.publish(stage.produces, identity, inputs, config.model_dump(mode="json"), make)
