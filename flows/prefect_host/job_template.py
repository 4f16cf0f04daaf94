"""Job templates of work pools that take no command, working directory or environment from a request.

A worker fills a pool's `job_configuration` with the `job_variables` of a request, whether or not
`variables` lists them, and merges `env` into any that is there. So what a request shall not
choose stands in neither, nor in a placeholder further inside.
"""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

CLOSED = frozenset({"command", "working_dir", "env"})
PLACEHOLDER = re.compile(
    r"\{\{\s*(\w+)[\w.\-\[\]$]*\s*\}\}"
)  # Prefect's form; the name it starts with


def closed(template: dict[str, Any]) -> dict[str, Any]:
    """The same template, with which a request that names one of CLOSED, or anything unknown, is refused."""
    variables = deepcopy(template.get("variables") or {"type": "object"})
    for listed in (variables.get("properties") or {}, variables.get("$defs") or {}):
        for name in CLOSED:
            listed.pop(name, None)
    if "required" in variables:
        variables["required"] = [name for name in variables["required"] if name not in CLOSED]
    variables["additionalProperties"] = False
    configuration = _without(template.get("job_configuration") or {})
    return template | {"variables": variables, "job_configuration": configuration}


def _without(value: Any, top: bool = True) -> Any:
    """A copy of a part of the configuration without what a request would fill in for CLOSED."""
    if isinstance(value, list):
        return [_without(one, top=False) for one in value if not _takes_closed(one)]
    if not isinstance(value, dict):
        return value
    kept = {key: one for key, one in value.items() if not _takes_closed(one)}
    if top:
        kept = {key: one for key, one in kept.items() if key not in CLOSED}
    return {key: _without(one, top=False) for key, one in kept.items()}


def _takes_closed(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    return not CLOSED.isdisjoint(PLACEHOLDER.findall(value))
