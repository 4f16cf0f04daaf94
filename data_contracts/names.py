"""Names point at artifacts, as in git: `names/<name>/<role>` says which id a person means, and keeps what it meant before.

Each pointing is an entry of its own, numbered from 1 and created only if nobody has: two writers can never both win, and the
number serves as a fencing token. The newest number counts. The recipe that whole runs of a name follow is kept beside its roles in
the same way.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from data_contracts.errors import ArtifactError, ConfigError
from data_contracts.files import flush

_RULE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_RECIPE = ".recipe"  # no role is called so


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer release may say more


E = TypeVar("E", bound=_Entry)


class Pointing(_Entry):
    """What a name meant, since when, and which run said so; and how it was made, so that it can be made again when it is gone."""

    noun: str
    id: str
    at: str
    run: str
    stage: str
    settings: dict[str, Any]
    as_of: str | None


class Followed(_Entry):
    """The recipe of a whole run, and the settings that differed from it, each as "stage.key=value"."""

    recipe: str
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
        key = _key(name, role)
        return [self._entry(key, number, Pointing) for number in self._numbers(key)]

    def get(self, name: str, role: str) -> Pointing | None:
        """What name/role means now."""
        return self._newest(_key(name, role), Pointing)

    def set(self, name: str, role: str, pointing: Pointing) -> bool:
        """Let name/role mean something else from now on. False if it already means that."""
        return self._append(_key(name, role), pointing, lambda newest: (newest.id, newest.settings) == (pointing.id, pointing.settings))

    def recipe(self, name: str) -> Followed | None:
        """What the last whole run of `name` followed."""
        return self._newest(f"{checked(name)}/{_RECIPE}", Followed)

    def follow(self, name: str, followed: Followed) -> None:
        """Remember what the whole run follows that begins now."""
        self._append(f"{checked(name)}/{_RECIPE}", followed, lambda newest: newest == followed)

    def roles(self, name: str) -> dict[str, Pointing]:
        """Every role of `name` with what it means now."""
        found = {role: self.get(name, role) for role in self._place.children(checked(name)) if _RULE.fullmatch(role)}
        return {role: pointing for role, pointing in found.items() if pointing}

    def all(self) -> list[str]:
        return [name for name in self._place.children("") if _RULE.fullmatch(name)]

    def _newest(self, key: str, kind: type[E]) -> E | None:
        numbers = self._numbers(key)
        return self._entry(key, numbers[-1], kind) if numbers else None

    def _append(self, key: str, entry: E, said: Callable[[E], bool]) -> bool:
        """Add an entry unless the newest has `said` the same."""
        while True:
            numbers = self._numbers(key)
            if numbers and said(self._entry(key, numbers[-1], type(entry))):
                return False
            number = numbers[-1] + 1 if numbers else 1
            if self._place.create(_numbered(key, number), entry.model_dump_json().encode()):
                return True  # else another writer was first: look again

    def _numbers(self, key: str) -> list[int]:
        found = self._place.children(key)
        return sorted(int(entry.removesuffix(".json")) for entry in found if re.fullmatch(r"[0-9]{8,}\.json", entry))

    def _entry(self, key: str, number: int, kind: type[E]) -> E:
        try:
            return kind.model_validate_json(self._place.read(_numbered(key, number)))
        except (ValidationError, OSError) as error:
            fix = f"make names/{_numbered(key, number)} readable or remove it from the store: the name then means what it meant before"
            raise ArtifactError(f"name {key}", f"its entry {number} cannot be read: {error}", fix) from None


def _key(name: str, role: str) -> str:
    return f"{checked(name)}/{checked(role)}"


def _numbered(key: str, number: int) -> str:
    return f"{key}/{number:08d}.json"
