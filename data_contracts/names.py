"""Names point at artifacts, as in git: `names/<name>/<role>` says which id a person means, and keeps what it meant before.

Each pointing is an entry of its own, numbered from 1 and created only if nobody has: two writers can never both win, and the
number serves as a fencing token. The newest number counts.
"""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from data_contracts.errors import ArtifactError, ConfigError
from data_contracts.files import flush

_RULE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Pointing(BaseModel):
    """What a name meant, since when, which run said so, and the recipe it followed if it followed one, with what differed from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    noun: str
    id: str
    at: str
    run: str
    recipe: str | None = None
    changes: tuple[str, ...] = ()


class Place(Protocol):
    """Where entries are kept under keys with slashes; a folder here, a bucket in `remote.py`."""

    def children(self, key: str) -> list[str]:
        """Last parts of the keys directly below `key`, in order; empty if there are none."""

    def read(self, key: str) -> bytes: ...

    def create(self, key: str, data: bytes) -> bool:
        """Write the whole entry, or nothing and return False if there is one already."""


class Folder:
    """A place on the local disk."""

    def __init__(self, root: Path):
        self.root = root

    def children(self, key: str) -> list[str]:
        place = self.root / key
        return sorted(path.name for path in place.iterdir()) if place.is_dir() else []

    def read(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def create(self, key: str, data: bytes) -> bool:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        waiting = path.parent / f".{uuid.uuid4().hex}"  # a link appears with all its bytes or not at all, and only once
        try:
            with waiting.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(waiting, path)
        except FileExistsError:
            return False
        finally:
            waiting.unlink(missing_ok=True)
        flush(path.parent)
        return True


def checked(name: str) -> str:
    """`name`, if it may be one. Raises ConfigError: names become paths, so the rule is narrow."""
    if not _RULE.fullmatch(name):
        raise ConfigError(
            f"name {name!r}", "is not 1 to 64 of a-z, 0-9, '_' and '-', beginning with a letter or digit", "choose another, e.g. demo"
        )
    return name


class Names:
    """All names of a store."""

    def __init__(self, place: Place):
        self._place = place

    def history(self, name: str, role: str) -> list[Pointing]:
        """Everything that name/role has meant, oldest first."""
        return [self._entry(name, role, number) for number in self._numbers(name, role)]

    def get(self, name: str, role: str) -> Pointing | None:
        """What name/role means now."""
        numbers = self._numbers(name, role)
        return self._entry(name, role, numbers[-1]) if numbers else None

    def set(self, name: str, role: str, pointing: Pointing) -> bool:
        """Let name/role mean something else from now on. False if it already means that."""
        while True:
            numbers = self._numbers(name, role)
            if numbers and self._entry(name, role, numbers[-1]).id == pointing.id:
                return False
            number = numbers[-1] + 1 if numbers else 1
            if self._place.create(_key(name, role, number), pointing.model_dump_json().encode()):
                return True  # else another writer was first: look again

    def roles(self, name: str) -> dict[str, Pointing]:
        """Every role of `name` with what it means now."""
        found = {role: self.get(name, role) for role in self._place.children(checked(name)) if _RULE.fullmatch(role)}
        return {role: pointing for role, pointing in found.items() if pointing}

    def all(self) -> list[str]:
        return [name for name in self._place.children("") if _RULE.fullmatch(name)]

    def _numbers(self, name: str, role: str) -> list[int]:
        found = self._place.children(f"{checked(name)}/{checked(role)}")
        return sorted(int(entry.removesuffix(".json")) for entry in found if re.fullmatch(r"[0-9]{8,}\.json", entry))

    def _entry(self, name: str, role: str, number: int) -> Pointing:
        key = _key(name, role, number)
        try:
            return Pointing.model_validate_json(self._place.read(key))
        except ValidationError as error:
            fix = f"remove names/{key} from the store: the name then means what it meant before"
            raise ArtifactError(f"name {name}/{role}", f"its entry {number} cannot be read: {error}", fix) from None


def _key(name: str, role: str, number: int) -> str:
    return f"{name}/{role}/{number:08d}.json"
