"""What `groundup rm` took out of a store is kept under `removed/<type>-<id>-<time>` until a person has it deleted."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from data_contracts.errors import ArtifactError, ConfigError
from data_contracts.store.identity import ID_DIGITS

REMOVED = "removed"
_FORM = re.compile(
    rf"([a-z][a-z0-9_]{{0,63}})-([0-9a-f]{{{ID_DIGITS}}})-([0-9]{{14}}-[0-9a-f]{{4}})"
)


def removed_name(artifact_type: str, id: str) -> str:
    """Under which name an artifact that is removed now is kept; no two are the same."""
    return f"{artifact_type}-{id}-{datetime.now(UTC):%Y%m%d%H%M%S}-{uuid.uuid4().hex[:4]}"


def parse_removed(name: str) -> tuple[str, str] | None:
    """The type and id of what is kept under `name`; None for a name that `removed_name` does not give."""
    found = _FORM.fullmatch(name)
    return (found[1], found[2]) if found else None


def age(name: str) -> str:
    """What sorts kept artifacts by when they were removed."""
    return name[-len("20260131000000-abcd") :]


def kept(name: str, names: Sequence[str]) -> tuple[str, str]:
    """The type and id of one that is kept. Raises ConfigError that says what there is, if it is not."""
    found = parse_removed(name)
    if found is None or name not in names:
        fix = (
            f"choose from: {', '.join(names)}" if names else "see what there is: groundup rm --list"
        )
        raise ConfigError(f"{REMOVED}/{name[:150]!r}", "is not kept here", fix)
    return found


def absent(artifact_type: str, id: str, location: str) -> ArtifactError:
    """Nothing is there that could be removed."""
    key = f"{artifact_type}/{id}"
    return ArtifactError(
        f"artifact {key}", f"is not in {location}", "see what there is: groundup ls"
    )


def in_its_stead(artifact_type: str, id: str) -> ArtifactError:
    """What is kept cannot come back: another making of it is in the store."""
    key = f"{artifact_type}/{id}"
    return ArtifactError(
        f"artifact {key}", "is in the store", f"take that away first: groundup rm {key}"
    )
