"""Refs point at artifacts, as in git.

`refs/<run>/<output>` says which artifact the output of a run is, and keeps what it was before.
Each change is a separate entry, numbered from 1 and created only if it does not exist. So two
writers can never both win, and the number serves as a fencing token. The entry with the highest
number counts. The recipe that whole runs follow is kept beside the outputs of a run, in the same
way.

Stores of groundup 0.1 keep their entries under `names/`. They are read from there; new entries go
to `refs/` and continue the numbers. So nothing is copied, and a store that cannot be written to is
read as any other.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from data_contracts.errors import ArtifactError, ConfigError
from data_contracts.store import repair
from data_contracts.store.entries import REFS, EntryStorage
from data_contracts.store.manifest import TYPE_KEYS, ArtifactId, Moment, Name, Sha256, parse_as

CONCURRENT_READS = 16  # reading an entry of a bucket takes a while
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
# The names that `_numbered` gives. Any other file is no entry.
_ENTRY_FILE = re.compile(r"(?:[0-9]{8}|[1-9][0-9]{8,15})\.json")
RECIPE = ".recipe"  # no output has this name


class _Entry(BaseModel):
    # A newer release may add fields. Entries are written under the keys that 0.1 gave them.
    model_config = ConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, serialize_by_alias=True
    )


E = TypeVar("E", bound=_Entry)


class Ref(_Entry):
    """Which artifact an output is, since when, and how it was made.

    With the latter it can be rebuilt when it is gone.

    Attributes:
        artifact_type: Its type.
        id: Its id.
        at: When the ref was pointed at it.
        made_by: The flow run or the command that pointed the ref at it; `run` in the stored entry.
        stage: The stage that made it.
        settings: All settings of that stage.
        as_of: Its logical date.
        manifest_sha256: Digest of its manifest at that time; None for entries of 0.1 that have not
            been sealed.
        removed: Whether `groundup rm` has removed the artifact, so that it may be rebuilt.
    """

    artifact_type: Name = Field(validation_alias=TYPE_KEYS)
    id: ArtifactId
    at: Moment
    made_by: str = Field(alias="run")
    stage: Name
    settings: dict[str, Any]
    as_of: Moment | None
    manifest_sha256: Sha256 | None = None
    removed: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """(artifact type, id)."""
        return self.artifact_type, self.id

    def is_same(self, other: Ref) -> bool:
        """Return whether `other` would change nothing but the time and `made_by`."""
        fields = ("id", "stage", "settings", "as_of", "manifest_sha256", "removed")
        return all(getattr(self, field) == getattr(other, field) for field in fields)


class RecipeRef(_Entry):
    """The recipe of a whole run, and the settings that differ from it.

    Attributes:
        recipe: The recipe.
        changes: The settings that differ, each as "stage.key=value".
        settings: All settings of each stage, as they were resolved. A recipe's file may change
            later. Empty in entries of releases that did not keep them.
    """

    recipe: str
    changes: tuple[str, ...] = ()
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)


@dataclass(frozen=True)
class CurrentRefs:
    """All refs of a store as they are now.

    Attributes:
        refs: The refs, by "run/output".
        unreadable: Refs whose newest entry cannot be read.
    """

    refs: dict[str, Ref]
    unreadable: tuple[str, ...]

    def pointing_at(self, artifact_type: str, id: str) -> dict[str, Ref]:
        """Return the refs that point at one artifact."""
        return {name: ref for name, ref in self.refs.items() if ref.key == (artifact_type, id)}


def is_name(name: str) -> bool:
    """Return whether a run or an output may have this name."""
    return bool(_NAME.fullmatch(name))


def checked(name: str) -> str:
    """Return `name` if a run or an output may have it. Names become paths, so the rule is narrow.

    Raises:
        ConfigError: They may not have it.
    """
    if not is_name(name):
        why = "is not 1 to 64 of a-z, 0-9, '_' and '-', beginning with a letter or digit"
        raise ConfigError(f"name {name!r}", why, "choose another, e.g. demo")
    return name


class Refs:
    """All refs of a store."""

    def __init__(self, storage: EntryStorage):
        self._storage = storage

    def get(self, run: str, output: str) -> Ref | None:
        """Return the ref run/output as it is now."""
        return self._newest(_key(run, output), Ref)

    def history(self, run: str, output: str) -> list[Ref]:
        """Return everything that run/output has pointed at, oldest first."""
        key = _key(run, output)
        return [self._entry(key, number, Ref) for number in self._numbers(key)]

    def set(self, run: str, output: str, ref: Ref) -> bool:
        """Let run/output point at something else from now on. False if it does already."""
        return self._append(_key(run, output), ref, unless=ref.is_same)

    def runs(self) -> list[str]:
        """Return the names of all runs."""
        return list(filter(is_name, self._storage.children("")))

    def outputs(self, run: str) -> dict[str, Ref]:
        """Return every output of `run`, by name."""
        found = {}
        for output in self._output_names(run):
            ref = self.get(run, output)
            if ref:
                found[output] = ref
        return found

    def require_run(self, run: str) -> dict[str, Ref]:
        """Return every output of `run`, by name. Raises ConfigError if there is no such run."""
        found = self.outputs(run) if is_name(run) else {}
        if not found:
            known = self.runs()
            fix = f"choose from: {', '.join(known)}" if known else "make one: groundup run"
            raise ConfigError(f"run {run!r}", "does not exist", fix)
        return found

    def current(self) -> CurrentRefs:
        """Return every ref of the store as it is now."""
        keys: list[tuple[str, str]] = []
        for run in self.runs():
            keys += [(run, output) for output in self._output_names(run)]
        refs = {}
        unreadable = []
        with ThreadPoolExecutor(CONCURRENT_READS) as pool:
            entries = pool.map(self._get_or_error, keys)
            for key, entry in zip(keys, entries, strict=True):
                if isinstance(entry, Ref):
                    refs[_key(*key)] = entry
                elif isinstance(entry, ArtifactError):
                    unreadable.append(_key(*key))
        return CurrentRefs(refs, tuple(unreadable))

    def recipe(self, run: str) -> RecipeRef | None:
        """Return the recipe that `run` last followed as a whole."""
        return self._newest(f"{checked(run)}/{RECIPE}", RecipeRef)

    def set_recipe(self, run: str, recipe: RecipeRef) -> None:
        """Remember the recipe of the whole run that begins now, whatever the entry before says."""
        key = f"{checked(run)}/{RECIPE}"
        try:
            self._append(key, recipe, unless=lambda newest: newest == recipe)
        except ArtifactError:  # the entry before cannot be read
            self._append(key, recipe, unless=None)

    def set_aside_newest(self, run: str, output: str) -> str | None:
        """Keep the newest entry under another key if its content is damaged.

        The ref then points at what it pointed at before, if at anything.

        Returns:
            Where in the store the entry is kept, or None if there is nothing to repair.

        Raises:
            ArtifactError: If the entry cannot be read: its content may be sound.
        """
        key = _key(run, output)
        numbers = self._numbers(key)
        if not numbers:
            return None
        try:
            self._parsed(key, numbers[-1], Ref)
        except ValueError:
            kept = f"{_numbered(key, numbers[-1])}.{uuid.uuid4().hex[:8]}.damaged"
            return self._storage.rename(_numbered(key, numbers[-1]), kept)
        return None

    def _output_names(self, run: str) -> list[str]:
        return list(filter(is_name, self._storage.children(checked(run))))

    def _get_or_error(self, key: tuple[str, str]) -> Ref | ArtifactError | None:
        try:
            return self.get(*key)
        except ArtifactError as error:
            return error

    def _newest(self, key: str, kind: type[E]) -> E | None:
        numbers = self._numbers(key)
        return self._entry(key, numbers[-1], kind) if numbers else None

    def _append(self, key: str, entry: E, unless: Callable[[E], bool] | None) -> bool:
        """Add an entry, unless `unless` is true for the newest one.

        If `unless` is None, the newest entry is not read.
        """
        while True:
            numbers = self._numbers(key)
            if unless and numbers and unless(self._entry(key, numbers[-1], type(entry))):
                return False
            number = numbers[-1] + 1 if numbers else 1
            if self._storage.create(_numbered(key, number), entry.model_dump_json().encode()):
                return True
            # Another writer was first: look again.

    def _numbers(self, key: str) -> list[int]:
        files = filter(_ENTRY_FILE.fullmatch, self._storage.children(key))
        return sorted(int(file.removesuffix(".json")) for file in files)

    def _entry(self, key: str, number: int, kind: type[E]) -> E:
        try:
            return self._parsed(key, number, kind)
        except ValueError as error:
            has_older = min(self._numbers(key), default=number) < number
            fix = _how_to_repair(key, kind, has_older)
            raise ArtifactError(
                f"ref {key}", f"its entry {number} cannot be read: {error}", fix
            ) from None

    def _parsed(self, key: str, number: int, kind: type[E]) -> E:
        """Return the entry.

        Raises ValueError for damaged content, ArtifactError if it cannot be read.
        """
        entry = _numbered(key, number)
        try:
            return parse_as(kind, self._storage.read(entry))
        except IsADirectoryError as error:
            raise ValueError(error.strerror) from None
        except OSError as error:
            damage = repair.of_error(entry, Path(REFS, entry), error)
            why = f"its entry {number} cannot be read: {error.strerror}"
            fix = repair.advice(f"ref {key}", [damage])
            raise ArtifactError(f"ref {key}", why, fix) from None


def _how_to_repair(key: str, kind: type[_Entry], has_older: bool) -> str:
    if kind is RecipeRef:
        return "say what the run follows, with --recipe; the entry is kept"
    if has_older:
        then = "the ref then points at what it pointed at before"
    else:
        run, _, output = key.partition("/")
        then = (
            f"it is the only one, so run {run} is without {output} "
            f"until a stage with --name {run} makes it"
        )
    return f"groundup rm {key}   (keeps the entry aside: {then})"


def _key(run: str, output: str) -> str:
    return f"{checked(run)}/{checked(output)}"


def _numbered(key: str, number: int) -> str:
    return f"{key}/{number:08d}.json"
