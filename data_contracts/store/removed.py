"""What `groundup rm` moves out of a store is kept as `removed/<type>-<id>-<time>`.

A person decides when it is deleted for good.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from data_contracts.errors import ArtifactError, ConfigError
from data_contracts.store.identity import ID_DIGITS

REMOVED = "removed"
_TIME_LENGTH = len("20260131000000-abcd")
_FORM = re.compile(
    rf"([a-z][a-z0-9_]{{0,63}})-([0-9a-f]{{{ID_DIGITS}}})-([0-9]{{14}}-[0-9a-f]{{4}})"
)


def removed_name(artifact_type: str, id: str) -> str:
    """Return a new name under which to keep an artifact that is removed now."""
    return f"{artifact_type}-{id}-{datetime.now(UTC):%Y%m%d%H%M%S}-{uuid.uuid4().hex[:4]}"


def parse_removed(name: str) -> tuple[str, str] | None:
    """Return the type and id of what is kept under `name`; None if it is no such name."""
    found = _FORM.fullmatch(name)
    return (found[1], found[2]) if found else None


def age(name: str) -> str:
    """Return the key that sorts names by the time of removal."""
    return name[-_TIME_LENGTH:]


def kept(name: str, names: Sequence[str]) -> tuple[str, str]:
    """Return the type and id of what is kept under `name`.

    Raises:
        ConfigError: It is not among `names`; the message lists them.
    """
    found = parse_removed(name)
    if found is None or name not in names:
        fix = "see what there is: groundup rm --list"
        if names:
            fix = f"choose from: {', '.join(names)}"
        raise ConfigError(f"{REMOVED}/{name[:150]!r}", "is not kept here", fix)
    return found


def absent(artifact_type: str, id: str, location: str) -> ArtifactError:
    """Return the error for an artifact that cannot be removed because it does not exist."""
    return ArtifactError(
        f"artifact {artifact_type}/{id}",
        f"is not in {location}",
        "see what there is: groundup ls",
    )


def replaced(artifact_type: str, id: str) -> ArtifactError:
    """Return the error for an artifact that cannot come back: another making of it exists."""
    key = f"{artifact_type}/{id}"
    return ArtifactError(
        f"artifact {key}", "is in the store", f"take that away first: groundup rm {key}"
    )
