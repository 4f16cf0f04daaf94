"""Groups of tasks in files, checked for names of tasks that do not exist.

lm-eval takes a name that it does not know for a task without settings, and fails later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from lm_eval.tasks._yaml_loader import load_yaml

# An entry of a group with one of these keys defines a task. Without them it names one.
DEFINING_KEYS = (
    "class",
    "custom_dataset",
    "dataset_name",
    "dataset_path",
    "doc_to_target",
    "doc_to_text",
    "include",
)


def is_group(path: Path) -> bool:
    """Return whether a file that lm-eval can read has a group."""
    return bool(_values(path).get("group"))


def absent(path: Path, known: Collection[str]) -> list[str]:
    """Return the tasks that a group in a file names and that are not in `known`.

    Nothing of the file is run. A file that lm-eval cannot read names no tasks.

    Args:
        path: The file.
        known: Names of tasks that exist.
    """
    return list(dict.fromkeys(_absent(_values(path), known)))


def _values(path: Path) -> dict[str, Any]:
    try:
        return load_yaml(path, resolve_func=False)
    except Exception:  # YAML and its tags may raise anything; lm-eval reports it when it loads
        return {}


def _absent(group: dict[str, Any], known: Collection[str]) -> Iterator[str]:
    members = group.get("task")
    if not isinstance(members, list):
        return
    for member in members:
        if isinstance(member, dict) and "group" in member:
            name = member["group"]
            if not isinstance(name, str) or name not in known:
                yield from _absent(member, known)
            continue
        name = _named_task(member)
        if name is not None and name not in known:
            yield name


def _named_task(member: Any) -> str | None:
    """Return the task that an entry of a group names; None if the entry defines its task."""
    if isinstance(member, str):
        return member
    if not isinstance(member, dict) or any(key in member for key in DEFINING_KEYS):
        return None
    name = member.get("task")
    return name if isinstance(name, str) else None
