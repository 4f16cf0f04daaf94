"""What a result *is*, apart from how it was made: the part of a run that gives an artifact its id.

Workers, devices, micro-batches and places never enter here; see `stages/config.py` for how a setting says which it is.
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
    """Whether an artifact may have this type and id; both become parts of paths."""
    return bool(_KEY.fullmatch(f"{artifact_type}/{id}"))


def key_of(artifact_type: str, id: str) -> str:
    """ "type/id". Raises ArtifactError for what no artifact is called."""
    if not is_key(artifact_type, id):
        shown = f"{artifact_type}/{id}"[:100]
        raise ArtifactError(
            f"artifact {shown!r}", "is no artifact type and id", "see what there is: groundup ls"
        )
    return f"{artifact_type}/{id}"


@dataclass(frozen=True)
class Identity:
    """stage and its own version, the contract written, the settings that bear on the result, the inputs, the logical date.

    inputs maps the stage's input name to an artifact id. as_of is an ISO 8601 date or time, for runs that read a changing
    world (a crawl, a scheduled evaluation); two dates are two results.
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
    """JSON with sorted keys, no spaces, no NaN: equal values give equal text."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
