"""What a result *is*, apart from how it was made: the part of a run that gives an artifact its id.

Workers, devices, micro-batches and paths never enter it. `stages/config.py` defines how a setting
says whether it does.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from data_contracts.errors import ArtifactError

ID_DIGITS = 24  # 96 bits
_KEY = re.compile(rf"[a-z][a-z0-9_]{{0,63}}/[0-9a-f]{{{ID_DIGITS}}}")


def is_key(artifact_type: str, id: str) -> bool:
    """Return whether an artifact may have this type and id. Both become parts of paths."""
    return bool(_KEY.fullmatch(f"{artifact_type}/{id}"))


def key_of(artifact_type: str, id: str) -> str:
    """Return the key "type/id".

    Raises ArtifactError if an artifact cannot have this type and id.
    """
    key = f"{artifact_type}/{id}"
    if not is_key(artifact_type, id):
        raise ArtifactError(
            f"artifact {key[:100]!r}",
            "is no artifact type and id",
            "see what there is: groundup ls",
        )
    return key


@dataclass(frozen=True)
class Identity:
    """Everything that determines the content of an artifact.

    Attributes:
        stage: The stage that makes it.
        stage_version: The stage's version, which changes when its results do.
        contract: "artifact_type version" of the contract that it is written under.
        config: The settings that have an effect on the result.
        inputs: The artifact ids of the inputs, by input name.
        as_of: An ISO 8601 date or time, for stages that read a changing world (a crawl, a
            scheduled evaluation). Two dates are two results.
    """

    stage: str
    stage_version: int
    contract: str
    config: dict[str, Any]
    inputs: dict[str, str] = field(default_factory=dict)
    as_of: str | None = None

    @cached_property
    def id(self) -> str:
        """The first 96 bits of sha256 over the canonical JSON of all fields, in hex."""
        return hashlib.sha256(canonical(asdict(self)).encode()).hexdigest()[:ID_DIGITS]


def canonical(value: Any) -> str:
    """Return JSON with sorted keys, no spaces and no NaN: equal values give equal text."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
