"""What shows that the content of a folder is a store's, and not that of another program.

The names of a store's folders are common: a Git repository has `objects` and `refs`, and a blog has
`drafts`. What is in them tells them apart. A marker would not: any repository may bring one along,
and older stores have none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path

from data_contracts.store.entries import REFS, REFS_OF_0_1
from data_contracts.store.identity import ID_DIGITS, is_key
from data_contracts.store.manifest import MANIFEST
from data_contracts.store.refs import RECIPE, is_name
from data_contracts.store.removed import REMOVED, parse_removed

_ID = re.compile(rf"[0-9a-f]{{{ID_DIGITS}}}")
_CACHED = re.compile(r"[0-9a-f]{16}")
_DIGESTS = re.compile(r"sha256\.sqlite(?:-.*)?")
# An entry of a ref; one that was set aside; one that is being written.
_ENTRY = re.compile(r"[0-9]{8,}\.json(?:\.[0-9a-f]{8}\.damaged)?|\.[0-9a-f]{32}")


class Trace(IntEnum):
    """What the content of a folder says about who made it."""

    FOREIGN = 0
    NONE = 1
    OURS = 2


def trace_of(folder: Path) -> Trace:
    """Return whether a part of a store or of its caches has the content that it would have.

    A part is a folder such as `objects`, the cache of a store behind a URL, or the file of digests.

    Looks at names only, and stops at the first that no store has.

    Returns:
        FOREIGN if anything in it is of another kind, a link included, or cannot be read; NONE if it
        has nothing but empty folders.
    """
    look = _LOOKS.get(folder.name, _store if _CACHED.fullmatch(folder.name) else None)
    found = Trace.NONE
    try:
        if folder.is_symlink():
            return Trace.FOREIGN
        if folder.is_file():
            return Trace.OURS if _DIGESTS.fullmatch(folder.name) else Trace.FOREIGN
        if look is None:
            return Trace.FOREIGN
        for trace in look(folder):
            if trace is Trace.FOREIGN:
                return trace
            found = max(found, trace)
    except OSError:
        return Trace.FOREIGN
    return found


def _store(folder: Path) -> Iterator[Trace]:
    """Look at the folders of a whole store, as a cache is one."""
    for path in folder.iterdir():
        yield trace_of(path) if path.name in _LOOKS else Trace.FOREIGN


def _objects(folder: Path) -> Iterator[Trace]:
    """Look at objects/<type>/<id>/manifest.json."""
    has_manifest, has_remains = False, False
    for kind in _folders(folder):
        for artifact in _folders(kind):
            if artifact is None or not is_key(*artifact.parts[-2:]):
                yield Trace.FOREIGN
            elif (artifact / MANIFEST).is_file():
                has_manifest = True
            else:
                has_remains = has_remains or any(artifact.iterdir())
    # Databases give ids of the same form, so what has no manifest proves nothing by itself.
    yield Trace.OURS if has_manifest else Trace.FOREIGN if has_remains else Trace.NONE


def _refs(folder: Path) -> Iterator[Trace]:
    """Look at refs/<run>/<output>/00000001.json, or .recipe for an output."""
    for run in _folders(folder):
        if run is None or not is_name(run.name):
            yield Trace.FOREIGN
        for output in _folders(run):
            if output is None or not (output.name == RECIPE or is_name(output.name)):
                yield Trace.FOREIGN
                return
            with os.scandir(output) as entries:
                for entry in entries:
                    is_entry = _ENTRY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
                    yield Trace.OURS if is_entry else Trace.FOREIGN


def _drafts(folder: Path) -> Iterator[Trace]:
    """Look at drafts/<type>-<id>, and at what is fetched from a bucket."""
    for draft in _folders(folder):
        artifact_type, _, digits = draft.name.rpartition("-") if draft else ("", "", "")
        is_draft = is_key(artifact_type.removeprefix("fetch-"), digits)
        yield Trace.OURS if is_draft else Trace.FOREIGN


def _removed(folder: Path) -> Iterator[Trace]:
    for kept in _folders(folder):
        yield Trace.OURS if kept and parse_removed(kept.name) else Trace.FOREIGN


def _locks(folder: Path) -> Iterator[Trace]:
    with os.scandir(folder) as entries:
        for entry in entries:
            is_lock = _ID.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            yield Trace.OURS if is_lock else Trace.FOREIGN


def _folders(folder: Path | None) -> Iterator[Path | None]:
    """Yield the folders in a folder, and None for anything else in it."""
    if folder is None:
        yield None
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            yield Path(entry.path) if entry.is_dir(follow_symlinks=False) else None


_LOOKS: dict[str, Callable[[Path], Iterator[Trace]]] = {
    "objects": _objects,
    REFS: _refs,
    REFS_OF_0_1: _refs,
    "drafts": _drafts,
    "locks": _locks,
    REMOVED: _removed,
}
