"""Groups of tasks in files: lm-eval takes a name that it does not know for a task without settings of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from lm_eval.tasks._yaml_loader import load_yaml

# one of these makes an entry of a group a task of its own, and not a name for one that is elsewhere
OWN = (
    "class",
    "custom_dataset",
    "dataset_name",
    "dataset_path",
    "doc_to_target",
    "doc_to_text",
    "include",
)


def is_group(path: Path) -> bool:
    """Whether a file that lm-eval can read has a group."""
    return bool(_values(path).get("group"))


def absent(path: Path, known: Collection[str]) -> list[str]:
    """The tasks that a group in a file names and that are none of `known`; none for a file that lm-eval cannot read.

    Nothing of the file is run.
    """
    return list(dict.fromkeys(_absent(_values(path), known)))


def _values(path: Path) -> dict[str, Any]:
    try:
        return load_yaml(path, resolve_func=False)
    except (
        Exception
    ):  # whatever YAML and its tags may raise: lm-eval's own look at the file says what
        return {}


def _absent(group: dict[str, Any], known: Collection[str]) -> Iterator[str]:
    members = group.get("task")
    for member in members if isinstance(members, list) else []:
        if isinstance(member, str):
            if member not in known:
                yield member
        elif isinstance(member, dict) and "group" in member:
            named = member["group"]
            if not isinstance(named, str) or named not in known:
                yield from _absent(member, known)
        elif isinstance(member, dict) and not any(key in member for key in OWN):
            name = member.get("task")
            if isinstance(name, str) and name not in known:
                yield name
