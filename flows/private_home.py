"""The home is its owner's alone, and so is the store, unless GROUNDUP_STORE_GROUP names a group that shares it.

A home holds the database, logs, the API secret and artifacts made of pages that may be private. Everything that groundup makes is closed
to others from the start (umask), and a home that an older groundup left open is closed when the next command works in it.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from data_contracts import ConfigError, GroundupError
from flows.home import Home

GROUP = "GROUNDUP_STORE_GROUP"
PRIVATE, OTHERS, ALL_BUT_OWNER = 0o700, 0o007, 0o077


def umask() -> int:
    """What new files and folders are closed to: everybody else, or everybody but a group that shares the store."""
    return OTHERS if os.environ.get(GROUP) else ALL_BUT_OWNER


def keep_private() -> None:
    """Whatever this process makes from now on, and all that it starts, is closed to others."""
    os.umask(umask())


def prepare(at: Home) -> list[str]:
    """Make the home if there is none, and close to others what is open. Returns what was changed, for people.

    Raises:
        GroundupError: the home belongs to somebody else, who could have planted in it what groundup would run.
        ConfigError: the group that shall share the store cannot.
    """
    _make(at)
    folders = {at.path: "", **_kept_elsewhere(at)}
    told = [line for folder, advice in folders.items() for line in _closed(folder, advice)]
    if group := os.environ.get(GROUP):
        told += _shared(at, group)
    return told


def _make(at: Home) -> None:
    try:
        at.path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        at.prefect.mkdir(mode=PRIVATE, exist_ok=True)
        owner = at.path.stat().st_uid
    except FileExistsError as error:
        fix = "give another: GROUNDUP_HOME=FOLDER groundup …, or move the file away"
        raise GroundupError(
            str(error.filename), "is a file, and the home is a folder", fix
        ) from None
    except OSError as error:
        fix = "repair that, or give another: GROUNDUP_HOME=FOLDER groundup …"
        raise GroundupError(
            f"the folder {at.path}", f"cannot be written: {error.strerror}", fix
        ) from None
    if owner != os.geteuid():
        why = f"belongs to {_user(owner)}, who could plant in it what groundup would run"
        fix = f"give another: GROUNDUP_HOME=FOLDER groundup …, or take it over: chown -R {os.geteuid()} {at.path}"
        raise GroundupError(f"the folder {at.path}", why, fix)


def _kept_elsewhere(at: Home) -> dict[Path, str]:
    """The store or the cache of one, where they lie outside of the home and are ours; and how to share them."""
    store = _local_store(at)
    if store is None:
        from data_contracts.store.remote import (
            cache_base,
        )  # Arrow and fsspec: only for a store behind a URL

        folder, advice = cache_base(), ""
    elif os.environ.get(GROUP):
        return {}
    else:
        folder, advice = store, f" (to share it with a group, set {GROUP})"
    ours = folder.is_dir() and folder.stat().st_uid == os.geteuid()
    return {folder: advice} if ours and not folder.is_relative_to(at.path) else {}


def _local_store(at: Home) -> Path | None:
    """The folder of the store; None if it is behind a URL."""
    local = at.store.removeprefix("file://")
    return None if "://" in local else Path(local)


def _closed(folder: Path, advice: str) -> Iterator[str]:
    """Close `folder` and what is in it to others, if it is open, and say so."""
    if not folder.stat().st_mode & ALL_BUT_OWNER:
        return
    folder.chmod(folder.stat().st_mode & ~ALL_BUT_OWNER)  # first: from now on nobody else gets in
    changed, left = 1, 0
    for path, mode in _inside(folder):
        if mode & ALL_BUT_OWNER:
            try:
                path.chmod(mode & ~ALL_BUT_OWNER)
                changed += 1
            except (
                PermissionError
            ):  # somebody else's file; nobody but its owner and we can reach it any more
                left += 1
    theirs = f"; {left:,} belong to others and stay as they are" if left else ""
    yield f"{folder} was open to other users of this machine: {changed:,} files and folders are now yours alone{advice}{theirs}"


def _inside(folder: Path) -> Iterator[tuple[Path, int]]:
    """Every file and folder in `folder` with its mode, but links: a file that has two names may be in use elsewhere."""
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place, name)
            try:
                found = path.lstat()
            except FileNotFoundError:  # of a process that works here
                continue
            has_two_names = stat.S_ISREG(found.st_mode) and found.st_nlink > 1
            if not stat.S_ISLNK(found.st_mode) and not has_two_names:
                yield path, stat.S_IMODE(found.st_mode)


def _shared(at: Home, name: str) -> Iterator[str]:
    """Open the store to a group, once: what is made in it later belongs to the group by itself."""
    store = _local_store(at)
    if store is None:
        raise ConfigError(
            f"{GROUP}={name}",
            "the store is behind a URL",
            f"say there who reads it, and unset {GROUP}",
        )
    if store.is_relative_to(at.path):
        fix = "have the store elsewhere, e.g. GROUNDUP_STORE=/srv/groundup"
        raise ConfigError(
            f"{GROUP}={name}", f"the store is in the home {at.path}, which is yours alone", fix
        )
    group = _group(name)
    store.mkdir(parents=True, exist_ok=True)
    state = store.stat()
    shared_already = state.st_gid == group and bool(state.st_mode & stat.S_ISGID)
    if shared_already or state.st_uid != os.geteuid():
        return
    try:
        for path, mode in [*_inside(store), (store, stat.S_IMODE(state.st_mode))]:
            os.chown(path, -1, group)
            like_owner = (mode & PRIVATE) | (mode & PRIVATE) >> 3
            path.chmod(like_owner | (stat.S_ISGID if path.is_dir() else 0))
    except PermissionError:
        why = f"{_user(os.geteuid())} may not give files to that group"
        raise ConfigError(
            f"{GROUP}={name}", why, f"join it: usermod -aG {name} USER, then log in again"
        ) from None
    yield f"{store} is shared with the group {name}; the others of this machine do not see it"


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(
            f"{GROUP}={name}", "there is no such group", "getent group lists those there are"
        ) from None


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
