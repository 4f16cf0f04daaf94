"""Job templates of work pools from which a request cannot set a command, folder or environment.

A worker fills a pool's `job_configuration` with the `job_variables` of a request, whether or not
`variables` lists them, and merges `env` into an `env` that is there. So a setting that a request
must not choose may be in neither section, nor in a placeholder deeper inside.
"""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

CLOSED = frozenset({"command", "working_dir", "env"})
PLACEHOLDER = re.compile(  # Prefect's syntax; captures the name with which it starts
    r"\{\{\s*(\w+)[\w.\-\[\]$]*\s*\}\}"
)


def closed(template: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a job template that rejects requests for CLOSED or unknown variables.

    Args:
        template: A `base_job_template` of Prefect, with `variables` and `job_configuration`.
    """
    variables = deepcopy(_mapping(template.get("variables")) or {"type": "object"})
    for section in ("properties", "$defs"):
        if section in variables:
            variables[section] = _mapping(variables[section])
            for name in CLOSED:
                variables[section].pop(name, None)
    if "required" in variables:
        required = variables["required"]
        names = required if isinstance(required, list) else []
        variables["required"] = [name for name in names if name not in CLOSED]
    variables["additionalProperties"] = False
    configuration = _without_closed(_mapping(template.get("job_configuration")))
    return template | {"variables": variables, "job_configuration": configuration}


def _mapping(value: Any) -> dict[str, Any]:
    """Return a section of a template; empty if somebody wrote something else there."""
    return value if isinstance(value, dict) else {}


def _without_closed(value: Any, is_top_level: bool = True) -> Any:
    """Copy a part of the configuration without the values that a CLOSED variable would fill."""
    if isinstance(value, list):
        kept_items = [item for item in value if not _uses_closed(item)]
        return [_without_closed(item, is_top_level=False) for item in kept_items]
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, item in value.items():
        is_closed_key = is_top_level and key in CLOSED
        if not is_closed_key and not _uses_closed(item):
            kept[key] = _without_closed(item, is_top_level=False)
    return kept


def _uses_closed(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    return not CLOSED.isdisjoint(PLACEHOLDER.findall(value))
