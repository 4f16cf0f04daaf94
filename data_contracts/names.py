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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from data_contracts import links, repair
from data_contracts.errors import ArtifactError, ConfigError
from data_contracts.files import flush, read_bounded
from data_contracts.manifest import ArtifactId, Moment, Name, Sha256, parse_as

_RULE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_RECIPE = ".recipe"  # no role is called so
MOST_BYTES = 16 << 20  # of an entry
AT_ONCE = 16  # entries that are read at a time: a bucket takes its time for each


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer release may say more


E = TypeVar("E", bound=_Entry)


class Pointing(_Entry):
    """What a name meant, since when, and which run said so; and how it was made, so that it can be made again when it is gone.

    manifest_sha256: of the manifest that it was pointed at; None where nobody has sealed what 0.1 pointed at.
    removed: `groundup rm` took the artifact away since, so that another making of it may follow.
    """

    noun: Name
    id: ArtifactId
    at: Moment
    run: str
    stage: Name
    settings: dict[str, Any]
    as_of: Moment | None
    manifest_sha256: Sha256 | None = None
    removed: bool = False

    def same(self, other: Pointing) -> bool:
        """Whether the other says nothing new."""
        parts = ("id", "settings", "manifest_sha256", "removed")
        return all(getattr(self, part) == getattr(other, part) for part in parts)


@dataclass(frozen=True)
class Newest:
    """What all refs of a store ("run/output") point at now. unreadable: those of which nobody can tell."""

    refs: dict[str, Pointing]
    unreadable: tuple[str, ...]

    def at(self, noun: str, id: str) -> dict[str, Pointing]:
        """The refs that point at one artifact."""
        return {ref: entry for ref, entry in self.refs.items() if (entry.noun, entry.id) == (noun, id)}


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

    def rename(self, key: str, to: str) -> None:
        """Keep the entry under another key."""


class Folder:
    """A place on the local disk: a folder of a store. No link leads out of it."""

    def __init__(self, root: Path):
        self.root = root

    def _within(self, key: str) -> Path:
        """Where the entry is. It may be a link itself, which is never opened: a person can have it set aside."""
        links.within(self.root.parent, (self.root / key).parent)
        return self.root / key

    def children(self, key: str) -> list[str]:
        folder = links.within(self.root.parent, self.root / key)
        with repair.reading(f"ref {key}" if key else f"refs in {self.root}", folder):
            return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def read(self, key: str) -> bytes:
        return read_bounded(self._within(key), MOST_BYTES)

    def rename(self, key: str, to: str) -> None:
        with repair.reading(f"ref {key}", self.root / key):
            self._within(key).rename(self._within(to))

    def create(self, key: str, data: bytes) -> bool:
        path = self._within(key)
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


def is_name(name: str) -> bool:
    """Whether a run or an output may be called so."""
    return bool(_RULE.fullmatch(name))


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
        return self._append(_key(name, role), pointing, pointing.same)

    def newest(self) -> Newest:
        """What every ref points at now."""
        keys = [(name, role) for name in self.all() for role in self._outputs(name)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = dict(zip(keys, pool.map(self._get_or_error, keys), strict=True))
        refs = {_key(*key): entry for key, entry in found.items() if isinstance(entry, Pointing)}
        unreadable = [_key(*key) for key, entry in found.items() if isinstance(entry, ArtifactError)]
        return Newest(refs, tuple(unreadable))

    def set_aside_newest(self, name: str, role: str) -> str | None:
        """Keep the newest entry, if its content is no entry's, under another key.

        The ref then points at what it pointed at before, if at anything. Returns the key of what was kept, or None if there is nothing
        to repair. Raises ArtifactError for an entry that cannot be read: it may be a good one.
        """
        key = _key(name, role)
        numbers = self._numbers(key)
        if not numbers:
            return None
        try:
            self._parsed(key, numbers[-1], Pointing)
        except ValueError:
            to = f"{_numbered(key, numbers[-1])}.{uuid.uuid4().hex[:8]}.damaged"
            self._place.rename(_numbered(key, numbers[-1]), to)
            return to
        return None

    def recipe(self, name: str) -> Followed | None:
        """What the last whole run of `name` followed."""
        return self._newest(f"{checked(name)}/{_RECIPE}", Followed)

    def follow(self, name: str, followed: Followed) -> None:
        """Remember what the whole run follows that begins now, whatever the entry before says."""
        key = f"{checked(name)}/{_RECIPE}"
        try:
            self._append(key, followed, lambda newest: newest == followed)
        except ArtifactError:
            self._append(key, followed, None)

    def roles(self, name: str) -> dict[str, Pointing]:
        """Every role of `name` with what it means now."""
        found = {role: self.get(name, role) for role in self._outputs(name)}
        return {role: pointing for role, pointing in found.items() if pointing}

    def require_run(self, name: str) -> dict[str, Pointing]:
        """Every role of the run `name`. Raises ConfigError if there is no such run."""
        found = self.roles(name) if is_name(name) else {}
        if not found:
            known = self.all()
            fix = f"choose from: {', '.join(known)}" if known else "make one: groundup run"
            raise ConfigError(f"run {name!r}", "does not exist", fix)
        return found

    def all(self) -> list[str]:
        return [name for name in self._place.children("") if _RULE.fullmatch(name)]

    def _outputs(self, name: str) -> list[str]:
        return [role for role in self._place.children(checked(name)) if _RULE.fullmatch(role)]

    def _get_or_error(self, key: tuple[str, str]) -> Pointing | ArtifactError | None:
        try:
            return self.get(*key)
        except ArtifactError as error:
            return error

    def _newest(self, key: str, kind: type[E]) -> E | None:
        numbers = self._numbers(key)
        return self._entry(key, numbers[-1], kind) if numbers else None

    def _append(self, key: str, entry: E, said: Callable[[E], bool] | None) -> bool:
        """Add an entry unless the newest has `said` the same. Without `said` nobody reads the newest."""
        while True:
            numbers = self._numbers(key)
            if said and numbers and said(self._entry(key, numbers[-1], type(entry))):
                return False
            number = numbers[-1] + 1 if numbers else 1
            if self._place.create(_numbered(key, number), entry.model_dump_json().encode()):
                return True  # else another writer was first: look again

    def _numbers(self, key: str) -> list[int]:
        found = self._place.children(key)
        return sorted(int(entry.removesuffix(".json")) for entry in found if re.fullmatch(r"[0-9]{8,}\.json", entry))

    def _entry(self, key: str, number: int, kind: type[E]) -> E:
        try:
            return self._parsed(key, number, kind)
        except ValueError as error:
            before = any(other < number for other in self._numbers(key))
            fix = _set_aside(key, kind, before)
            raise ArtifactError(f"ref {key}", f"its entry {number} cannot be read: {error}", fix) from None

    def _parsed(self, key: str, number: int, kind: type[E]) -> E:
        """The entry. Raises ValueError for content that is none, ArtifactError for what cannot be read."""
        entry = _numbered(key, number)
        try:
            return parse_as(kind, self._place.read(entry))
        except IsADirectoryError as error:
            raise ValueError(error.strerror) from None
        except OSError as error:
            damage = repair.of_error(entry, Path("names", entry), error)
            why = f"its entry {number} cannot be read: {error.strerror}"
            raise ArtifactError(f"ref {key}", why, repair.advice(f"ref {key}", [damage])) from None


def _set_aside(key: str, kind: type[_Entry], before: bool) -> str:
    """before: whether the ref has older entries."""
    if kind is Followed:
        return f"say what the run follows, with --recipe; the entry is kept under names/{key}"
    if before:
        then = "the ref then points at what it pointed at before"
    else:
        run, _, output = key.partition("/")
        then = f"it is the only one, so run {run} is without {output} until a stage with --name {run} makes it"
    return f"groundup rm {key}   (keeps the entry aside: {then})"


def _key(name: str, role: str) -> str:
    return f"{checked(name)}/{checked(role)}"


def _numbered(key: str, number: int) -> str:
    return f"{key}/{number:08d}.json"
