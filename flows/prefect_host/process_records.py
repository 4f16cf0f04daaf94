"""The files that record the server and the worker of a home: read with care, written at once.

A home may come from elsewhere, and a disk may have been full. So nothing of a record is used before
it is checked, and a record alone proves nothing: see processes.py.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from data_contracts.json_files import read_json
from flows.home import Home, writing

MAX_BYTES = 64 << 10
MAX_PID = 2**31 - 1
MAX_PORT = 65535
FIELDS: dict[str, tuple[type, ...]] = {
    "pid": (int,),
    "command": (list,),
    "kept": (bool,),
    "host": (str,),
    "port": (int,),
    "url": (str, type(None)),
    "at_once": (int,),
    "store": (str,),
}
REQUIRED = ("pid", "command")


def read(path: Path) -> dict[str, Any]:
    """Return the record in a file; empty if there is none, or if it cannot be used."""
    try:
        return _checked(path)
    except (OSError, ValueError):
        return {}


def problem(path: Path) -> str | None:
    """Return why the record in a file cannot be used; None if it can, or if there is none."""
    if not os.path.lexists(path):
        return None
    try:
        _checked(path)
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:
        return str(error)
    return None


def write(home: Home, path: Path, record: dict[str, Any]) -> None:
    """Write a record: whoever reads it finds the old one or the new one, never a part."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with writing(home):
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(record, file)
        new.replace(path)


def set_aside(home: Home, path: Path) -> Path:
    """Rename a record that cannot be used, and return its new path. No file is overwritten."""
    aside = path.with_name(f"{path.name}.unusable-{secrets.token_hex(4)}")
    with writing(home):
        path.rename(aside)
    return aside


def _checked(path: Path) -> dict[str, Any]:
    if path.is_symlink():
        raise ValueError(f"{path.name} is a link")
    found = read_json(path, MAX_BYTES)
    if path.stat().st_uid != os.geteuid():
        raise ValueError(f"{path.name} belongs to another user")
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise ValueError(f"{path.name} has no {' and no '.join(missing)}")
    for name, kinds in FIELDS.items():
        if name in found and not _is_of(found[name], kinds):
            raise ValueError(f"{path.name} has a wrong {name}")
    is_command = all(isinstance(argument, str) for argument in found["command"])
    is_in_range = 0 < found["pid"] <= MAX_PID and 0 <= found.get("port", 0) <= MAX_PORT
    if not is_command or not is_in_range:
        raise ValueError(f"{path.name} names no process that groundup starts")
    return found


def _is_of(value: object, kinds: tuple[type, ...]) -> bool:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if int in kinds:
        return is_number
    return isinstance(value, kinds)
