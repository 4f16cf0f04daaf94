"""What is written of an artifact when it is published: its manifest, and the refs to it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from data_contracts.errors import ContractError
from data_contracts.files import CORRECT
from data_contracts.store.artifact import Artifact, InputRef, Manifest
from data_contracts.store.draft import Draft, checked_files
from data_contracts.store.identity import Identity
from data_contracts.store.refs import Ref


def describe(
    draft: Draft,
    identity: Identity,
    inputs: Mapping[str, Artifact],
    settings: dict[str, Any],
    facts: dict[str, Any],
    started: str,
) -> Manifest:
    """Check a finished draft and make its manifest.

    Raises:
        ContractError: The draft breaks its contract.
    """
    files, rows = checked_files(draft, inputs)
    return Manifest(
        groundup=version("groundup"),
        id=identity.id,
        artifact_type=draft.artifact_type,
        contract=str(draft.contract.version),
        stage=identity.stage,
        stage_version=identity.stage_version,
        as_of=identity.as_of,
        config=identity.config,
        settings=settings,
        inputs={name: _input(artifact) for name, artifact in inputs.items()},
        rows=rows,
        facts=facts,
        files=files,
        started=started,
        finished=now(),
    )


def as_written(manifest: Manifest) -> bytes:
    """The bytes of the manifest's file. Raises ContractError for facts that are not plain JSON."""
    try:
        return manifest.model_dump_json(indent=1).encode()
    except ValueError as error:  # a numpy number, a Path … among the facts
        raise ContractError(
            f"facts of stage {manifest.stage}",
            f"are not plain JSON: {error}",
            "nothing was published; correct the stage",
        ) from None


def require_described(identity: Identity, draft: Draft, inputs: Mapping[str, Artifact]) -> None:
    """Refuse an identity that the manifest would not give back: `verify` computes every id again.

    Raises:
        ContractError: The identity is of another contract or of other inputs.
    """
    contract = f"{draft.artifact_type} {draft.contract.version}"
    given = {name: artifact.id for name, artifact in inputs.items()}
    if (identity.contract, identity.inputs) != (contract, given):
        why = (
            f"is of contract {identity.contract} and inputs {identity.inputs}, "
            f"what is published of {contract} and {given}"
        )
        raise ContractError(f"identity {identity.id}", why, CORRECT)


def ref_to(artifact: Artifact, run: str, digest: str | None) -> Ref:
    """The entry of a ref that points at `artifact` from now on.

    Args:
        artifact: What the ref points at.
        run: The run that points the ref at it.
        digest: sha256 of the manifest, or None if the ref stays unsealed.
    """
    manifest = artifact.manifest
    return Ref(
        artifact_type=manifest.artifact_type,
        id=manifest.id,
        at=now(),
        run=run,
        stage=manifest.stage,
        settings=manifest.settings,
        as_of=manifest.as_of,
        manifest_sha256=digest,
    )


def now() -> str:
    """The time in ISO 8601, to the second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _input(artifact: Artifact) -> InputRef:
    return InputRef(
        artifact_type=artifact.artifact_type,
        id=artifact.id,
        manifest_sha256=artifact.digest,
    )
