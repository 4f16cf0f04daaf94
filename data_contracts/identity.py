"""What a result *is*, apart from how it was made: the part of a run that gives an artifact its id.

Workers, devices, micro-batches and places never enter here; see `stages/config.py` for how a setting says which it is.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

ID_DIGITS = 24  # 96 bits


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
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
