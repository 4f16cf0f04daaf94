"""File permissions: the home and the store are private to their owner.

A home holds the database, logs, the API secret and artifacts made of pages that may be private.
The umask closes new files to other users. A home that an older groundup left open is closed when
the next command works in it. A store or a cache elsewhere may share its folder with files that are
none of groundup's, such as those of a web site: only what groundup made there is closed, as its
content shows.
GROUNDUP_STORE_GROUP names a group that shares a store outside of the home.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_contracts import ConfigError, GroundupError
from data_contracts.store import repair
from data_contracts.store.address import cache_base
from flows import known_homes
from flows.home import Home

GROUP = "GROUNDUP_STORE_GROUP"
PRIVATE, OTHERS, ALL_BUT_OWNER = 0o700, 0o007, 0o077
# What groundup makes in the folder of a store, and in that of caches.
STORE_ENTRY = re.compile("objects|refs|names|drafts|locks|removed")
CACHE_ENTRY = re.compile(r"[0-9a-f]{16}|sha256\.sqlite(-.*)?")
OWNER_TO_GROUP = 3  # bits by which the owner's permissions are shifted to be the group's


def umask() -> int:
    """Return the umask for new files: no access for others, nor for a group unless one shares."""
    return OTHERS if os.environ.get(GROUP) else ALL_BUT_OWNER


def keep_private() -> None:
    """Set the umask of this process and of all that it starts."""
    os.umask(umask())


def prepare(home: Home, starts: bool = True, trust: bool = False) -> list[str]:
    """Create the home if it is missing, and remove other users' access to it and to the store.

    Args:
        home: The home.
        starts: Whether the command starts something that the home decides. The home must then be
            one that this user made or trusts; see known_homes.py.
        trust: Whether this user trusts the home from now on.

    Returns:
        A line for people about each folder whose permissions have changed, and about a home that
        was accepted.

    Raises:
        GroundupError: Another user owns the home, or may have filled it, and could plant in it
            what groundup would run.
        ConfigError: The store cannot be shared with the group of GROUNDUP_STORE_GROUP.
    """
    _make(home)
    if starts:
        lines = known_homes.admit(home, trust, cache_base())
    elif known_homes.is_known(home):
        lines = []
    else:  # it may be any folder, to which a link in a cloned folder leads
        return []
    _refuse_links(home)
    _make_prefect_folder(home)
    lines += _close(home.path)
    if lines:  # the home was accepted, or closed; in a closed one, too, others may have a way in
        for path in known_homes.open_to_writers(home):
            lines += _close(path)
        if any(known_homes.open_refs(home)):
            for name in known_homes.REFS:
                lines += _close_content(home.path / name)
    lines += _close_elsewhere(home)
    group = os.environ.get(GROUP)
    if group:
        lines += _share_store(home, group)
    return lines


def _make(home: Home) -> None:
    with _explained(home):
        home.path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        owner = home.path.stat().st_uid
    if owner != os.geteuid():
        raise GroundupError(
            f"the folder {home.path}",
            f"belongs to {_user_name(owner)}, who could plant in it what groundup would run",
            "name another folder: GROUNDUP_HOME=FOLDER groundup …",
        )


def _make_prefect_folder(home: Home) -> None:
    with _explained(home):
        home.prefect.mkdir(mode=PRIVATE, exist_ok=True)


@contextmanager
def _explained(home: Home) -> Iterator[None]:
    """Turn an error of making a folder into one that says what to do."""
    try:
        yield
    except FileExistsError as error:
        raise GroundupError(
            str(error.filename),
            "is a file, and the home is a folder",
            "name another folder: GROUNDUP_HOME=FOLDER groundup …, or move the file away",
        ) from None
    except OSError as error:
        raise GroundupError(
            f"the folder {home.path}",
            f"cannot be written: {error.strerror}",
            "repair that, or name another folder: GROUNDUP_HOME=FOLDER groundup …",
        ) from None


def _refuse_links(home: Home) -> None:
    """Require that the folders of the home are in it: what a link leads to may be anybody's.

    Raises:
        GroundupError: One of them is a link.
    """
    folders = [home.prefect]
    if not os.environ.get("GROUNDUP_STORE"):
        folders.append(home.path / "store")
    for folder in folders:
        if folder.is_symlink():
            to = folder.readlink()
            fix = f"move it away: {repair.move_aside(folder)}"
            if folder.name == "store":
                fix += f"   (a store elsewhere is named: GROUNDUP_STORE={repair.quoted(to)})"
            raise GroundupError(f"the folder {folder}", f"is a link to {to}, out of the home", fix)


def _close_elsewhere(home: Home) -> Iterator[str]:
    """Close our files outside of the home: the store or, for one behind a URL, its cache."""
    store = _local_store(home)
    if store is None:
        folder, entry, advice = cache_base(), CACHE_ENTRY, ""
    elif os.environ.get(GROUP):
        return
    else:
        folder, entry, advice = store, STORE_ENTRY, f" (to share it with a group, set {GROUP})"
    if folder.is_relative_to(home.path) or not folder.is_dir():
        return
    if folder.stat().st_uid == os.geteuid():
        if not folder.stat().st_mode & ALL_BUT_OWNER:  # nobody else gets in
            return
        for ours in _ours(folder, entry):
            yield from _close(ours, advice)


def _ours(folder: Path, entry: re.Pattern[str]) -> list[Path]:
    """Return the folder if nothing but what groundup makes is in it, or else only that."""
    # Reads contracts, which the help of a command does not need.
    from data_contracts.store.traces import Trace, trace_of

    inside = sorted(path for path in folder.iterdir() if path.name != "lost+found")
    traces = dict.fromkeys(inside, Trace.FOREIGN)
    for path in inside:
        if entry.fullmatch(path.name):
            traces[path] = trace_of(path)
    if Trace.FOREIGN not in traces.values():
        return [folder]
    # Beside other files, an empty folder may be anybody's.
    return [path for path, trace in traces.items() if trace is Trace.OURS]


def _local_store(home: Home) -> Path | None:
    """Return the folder of the store; None if the store is behind a URL."""
    location = home.store.removeprefix("file://")
    return None if "://" in location else Path(location)


def _close(folder: Path, advice: str = "") -> Iterator[str]:
    """Remove other users' access to an open folder and its content, and yield a line about it."""
    found = folder.stat()
    if not found.st_mode & ALL_BUT_OWNER or found.st_uid != os.geteuid():
        return
    # The folder itself comes first: from then on nobody else gets in.
    folder.chmod(stat.S_IMODE(found.st_mode) & ~ALL_BUT_OWNER)
    yield from _close_content(folder, advice, changed=1)


def _close_content(folder: Path, advice: str = "", changed: int = 0) -> Iterator[str]:
    """Remove other users' access to all that is in a folder, and yield a line about it.

    Args:
        folder: The folder.
        advice: What the line says about sharing it.
        changed: How many files and folders have been closed before.
    """
    left = 0
    for path, mode in _content(folder):
        if not mode & ALL_BUT_OWNER:
            continue
        try:
            path.chmod(mode & ~ALL_BUT_OWNER)
            changed += 1
        except PermissionError:
            # The file is another user's. Only that user and we can still reach it.
            left += 1
    if not changed:
        return
    theirs = f"; {left:,} belong to others and stay as they are" if left else ""
    yield (
        f"{folder} was open to other users of this machine: "
        f"{changed:,} files and folders are now yours alone{advice}{theirs}"
    )


def _content(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield every file and folder in `folder` with its mode.

    Skips links, and files with two names: the other name may be in use elsewhere.
    """
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(parent, name)
            try:
                found = path.lstat()
            except FileNotFoundError:  # a process that works here has deleted it
                continue
            has_two_names = stat.S_ISREG(found.st_mode) and found.st_nlink > 1
            if not stat.S_ISLNK(found.st_mode) and not has_two_names:
                yield path, stat.S_IMODE(found.st_mode)


def _share_store(home: Home, group_name: str) -> Iterator[str]:
    """Give the store to a group once. The setgid bit hands later files to the group, too."""
    store = _shareable_store(home, group_name)
    group = _group_id(group_name)
    store.mkdir(parents=True, exist_ok=True)
    state = store.stat()
    is_shared = state.st_gid == group and bool(state.st_mode & stat.S_ISGID)
    if is_shared or state.st_uid != os.geteuid():
        return
    if _ours(store, STORE_ENTRY) != [store]:
        raise ConfigError(
            f"{GROUP}={group_name}",
            f"{store} holds other files than those of a store, and the group would get them, too",
            f"name a folder of its own: GROUNDUP_STORE={repair.quoted(store / 'groundup')}",
        )
    try:
        for path, mode in [*_content(store), (store, stat.S_IMODE(state.st_mode))]:
            os.chown(path, -1, group)
            owner_bits = mode & PRIVATE
            shared_mode = owner_bits | owner_bits >> OWNER_TO_GROUP
            path.chmod(shared_mode | (stat.S_ISGID if path.is_dir() else 0))
    except PermissionError:
        raise ConfigError(
            f"{GROUP}={group_name}",
            f"{_user_name(os.geteuid())} may not give files to that group",
            f"join it: usermod -aG {group_name} USER, then log in again",
        ) from None
    yield (
        f"{store} is shared with the group {group_name}; other users of this machine cannot see it"
    )


def _shareable_store(home: Home, group_name: str) -> Path:
    store = _local_store(home)
    if store is None:
        raise ConfigError(
            f"{GROUP}={group_name}",
            "the store is behind a URL",
            f"set there who may read it, and unset {GROUP}",
        )
    if store.is_relative_to(home.path):
        raise ConfigError(
            f"{GROUP}={group_name}",
            f"the store is in the home {home.path}, which is yours alone",
            "put the store elsewhere, e.g. GROUNDUP_STORE=/srv/groundup",
        )
    return store


def _group_id(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(
            f"{GROUP}={name}",
            "there is no such group",
            "choose one of those that `getent group` lists",
        ) from None


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
