"""What is written of an artifact when it is published: its manifest, and the refs to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from data_contracts.errors import CORRECT, ContractError
from data_contracts.store.artifact import Artifact, InputRef, Manifest
from data_contracts.store.draft import Draft, checked_files
from data_contracts.store.entries import MAX_ENTRY_BYTES
from data_contracts.store.identity import Identity
from data_contracts.store.manifest import MAX_BYTES, parse_as
from data_contracts.store.refs import Ref

_MAX_MADE_BY = 1000  # bytes for `made_by` in a ref, when its length is checked


def describe(
    draft: Draft,
    identity: Identity,
    inputs: Mapping[str, Artifact],
    settings: dict[str, Any],
    facts: dict[str, Any],
    started: str,
) -> Manifest:
    """Check a finished draft and make its manifest.

    Args:
        draft: The finished draft.
        identity: What the id is a hash of.
        inputs: The artifacts that it was made from, by input name.
        settings: All settings of the stage.
        facts: What the stage found.
        started: When the stage started.

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
    """Return the bytes of the manifest's file.

    Readers accept a manifest and a ref within bounds, so that a damaged or hostile one cannot take
    all memory. What is written is held to the same bounds: a stage whose facts exceed them fails
    here, and not at the next stage.

    Raises:
        ContractError: The facts are not plain JSON, or no reader would accept the manifest or a
            ref to it.
    """
    try:
        written = manifest.model_dump_json(indent=1).encode()
    except ValueError as error:  # a numpy number, a Path … among the facts
        what = f"facts of stage {manifest.stage}"
        raise _unreadable(what, f"are not plain JSON: {error}") from None
    what = f"manifest of {manifest.artifact_type}, made by stage {manifest.stage}"
    if len(written) > MAX_BYTES:
        facts = len(json.dumps(manifest.facts, default=str))
        why = (
            f"has {len(written):,} bytes, {facts:,} of them facts; "
            f"readers accept {MAX_BYTES:,} bytes"
        )
        raise _unreadable(what, why)
    try:
        Manifest.parse(written)
    except ValueError as error:
        raise _unreadable(what, f"is one that no reader accepts: {error}") from None
    _require_readable_ref(manifest)
    return written


def _require_readable_ref(manifest: Manifest) -> None:
    """Refuse settings that a ref to the artifact could not hold."""
    ref = entry_of(manifest, "-" * _MAX_MADE_BY, "0" * 64).model_dump_json().encode()
    problem = None
    if len(ref) > MAX_ENTRY_BYTES:
        problem = f"take {len(ref):,} bytes in a ref; readers accept {MAX_ENTRY_BYTES:,} bytes"
    else:
        try:
            parse_as(Ref, ref)
        except ValueError as error:
            problem = f"make a ref that no reader accepts: {error}"
    if problem:
        raise _unreadable(f"settings of stage {manifest.stage}", problem)


def _unreadable(what: str, why: str) -> ContractError:
    return ContractError(what, why, "nothing was published; correct the stage or its settings")


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


def ref_to(artifact: Artifact, made_by: str, digest: str | None) -> Ref:
    """Return the entry of a ref that points at `artifact` from now on.

    Args:
        artifact: What the ref points at.
        made_by: The flow run or the command that points the ref at it.
        digest: sha256 of the manifest, or None if the ref stays unsealed.
    """
    return entry_of(artifact.manifest, made_by, digest)


def entry_of(manifest: Manifest, made_by: str, digest: str | None) -> Ref:
    """Return the same as `ref_to`, for the artifact that `manifest` describes."""
    return Ref(
        artifact_type=manifest.artifact_type,
        id=manifest.id,
        at=now(),
        made_by=made_by,
        stage=manifest.stage,
        settings=manifest.settings,
        as_of=manifest.as_of,
        manifest_sha256=digest,
    )


def now() -> str:
    """Return the time in ISO 8601, to the second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _input(artifact: Artifact) -> InputRef:
    return InputRef(
        artifact_type=artifact.artifact_type,
        id=artifact.id,
        manifest_sha256=artifact.digest,
    )
