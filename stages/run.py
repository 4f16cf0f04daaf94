"""Runs one stage against one store: the plain function that flows, tests and commands use."""

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
from stages import Input, Stage
from stages.config import StageConfig
from stages.report import Report

EXAMPLE_DATE = "2026-01-31"


def identity_of(
    stage: Stage, config: StageConfig, inputs: Mapping[str, str], as_of: str | None = None
) -> Identity:
    """Return what the id of a stage's result is made of. None of the inputs has to exist.

    Args:
        stage: The stage.
        config: Its settings.
        inputs: The ids of its inputs, by name.
        as_of: The logical date, in ISO 8601. Only stages that read the changing world use it.

    Raises:
        ConfigError: `as_of` is not a date.
        ContractError: A released contract was changed, or the stage reads another major version
            than is written.
    """
    frozen.require(stage.produces)
    for taken in stage.consumes:
        frozen.require(taken.artifact_type)
        written = current(taken.artifact_type).version
        if written.major != taken.major:
            raise ContractError(
                f"stage {stage.name}",
                f"reads {taken.artifact_type} {taken.major}.x, and {taken.artifact_type} is now at"
                f" {written}",
                "adapt the stage, and say in stages/__init__.py what it reads",
            )
    try:
        datetime.fromisoformat(as_of or EXAMPLE_DATE)
    except ValueError:
        raise ConfigError(
            f"--as-of {as_of}", "is not a date", f"write e.g. --as-of {EXAMPLE_DATE}"
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
    """Make the artifact of a stage, unless the store has it.

    Inputs are verified against their manifests and contract versions before any work. Files of
    checkpoints and tokenizers are checked against the rules of their contracts, too, because
    libraries believe what such files say.

    Args:
        store: Where the artifact goes.
        stage: The stage.
        config: Its settings.
        inputs: Its inputs, by name.
        report: Receives progress and notes.
        as_of: The logical date, in ISO 8601.

    Returns:
        The artifact, and whether it was made now.

    Raises:
        ConfigError: An input is missing or of another type.
        ArtifactError: An input is damaged.
        ContractError: An input breaks its contract, or the result would.
    """
    for taken in stage.consumes:
        if taken.name in inputs:
            _require_type(stage, taken, inputs[taken.name])
        elif not taken.optional:
            fix = f"groundup stage {stage.name} {taken.name}=NAME/{taken.output}"
            raise ConfigError(f"stage {stage.name}", f"needs {taken.name}", fix)
    ids = {name: artifact.id for name, artifact in inputs.items()}
    identity = identity_of(stage, config, ids, as_of)
    used_report = report or Report()

    def make(draft: Draft) -> dict[str, object]:
        for taken in stage.consumes:
            if taken.name in inputs:
                _verify(inputs[taken.name], taken, used_report)
        facts = stage.function(config, **inputs, out=draft, report=used_report)
        return asdict(facts)

    return store.publish(stage.produces, identity, inputs, config.model_dump(mode="json"), make)


def _require_type(stage: Stage, taken: Input, artifact: Artifact) -> None:
    if artifact.artifact_type != taken.artifact_type:
        raise ConfigError(
            f"stage {stage.name}",
            f"{taken.name} must be {taken.artifact_type}, {artifact} is not",
            f"give an artifact of type {taken.artifact_type}",
        )


def _verify(artifact: Artifact, taken: Input, report: Report) -> None:
    note = artifact.require(taken.major)
    if note:
        report.note(note)
    artifact.verify()
    artifact.check_files()
