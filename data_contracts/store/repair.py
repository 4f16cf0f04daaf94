"""What a person can do about a fault of the store. No advice deletes anything.

The advice follows from the cause. A missing permission needs a permission. Damaged content needs a
copy, or must be rebuilt, which takes time. Files that do not belong there can be moved. Only
`groundup rm` takes artifacts out of the store, and it keeps them aside.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pwd
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_contracts.errors import ArtifactError, how_to_rebuild

Cause = Literal["content", "permission", "stray", "disk"]
_PERMISSION = (errno.EACCES, errno.EPERM)
_MAX_COMMANDS = 3  # of one kind
_MAX_KEPT_NAME = 50  # characters: a file name may have 255 bytes, and moving one aside extends it


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong with a file of an artifact.

    Attributes:
        what: What is wrong, for a message.
        cause: Why, which decides what to do.
        path: The file or folder.
    """

    what: str
    cause: Cause
    path: Path


def of_error(what: str, path: Path, error: OSError) -> Damage:
    """Return the damage behind an error of the operating system."""
    cause: Cause = "permission" if error.errno in _PERMISSION else "disk"
    if isinstance(error.filename, str | bytes):
        path = Path(os.fsdecode(error.filename))
    return Damage(f"{what} cannot be read: {error.strerror}", cause, path)


def advice(
    artifact: str, found: Sequence[Damage], stage: str | None = None, seconds: float | None = None
) -> str:
    """Return how to repair an artifact.

    Args:
        artifact: Its key, "type/id".
        found: What is wrong with it.
        stage: The stage that made it, if known.
        seconds: How long that took, if known.
    """
    paths: dict[Cause, list[Path]] = {"permission": [], "disk": [], "stray": [], "content": []}
    for damage in found:
        paths[damage.cause].append(damage.path)
    closed = map(permission, paths["permission"])
    parts = list(dict.fromkeys(closed))[:_MAX_COMMANDS]
    if paths["disk"]:
        parts.append("check the disk (dmesg), then run the command again")
    for path in paths["stray"][:_MAX_COMMANDS]:
        parts.append(f"move it out of the artifact: {move_aside(path)}")
    if paths["content"]:
        parts.append(f"restore it from a copy of the store, or {rebuild(artifact, stage, seconds)}")
    return "; ".join(parts)


def rebuild(artifact: str, stage: str | None = None, seconds: float | None = None) -> str:
    """Return how to set an artifact aside and make it again, and how long that takes.

    Args:
        artifact: Its key, "type/id".
        stage: The stage that made it, if known.
        seconds: How long that took, if known.
    """
    again = how_to_rebuild(stage).removeprefix("make it again: ")
    cost = "" if seconds is None else f"; making it took {_duration(seconds)}"
    return f"make it again: groundup rm {artifact}   (keeps it aside)   then {again}{cost}"


def permission(path: Path, write: bool = False) -> str:
    """Return the command that lets the current user read (or write) `path`, and who can run it.

    Args:
        path: The file or folder.
        write: Whether it has to be written, too.
    """
    culprit = _closed(path, write)
    bits = ("rw" if write else "r") + ("X" if culprit.is_dir() else "")
    try:
        owner = culprit.lstat().st_uid
    except OSError:
        return f"let yourself reach {quoted(culprit)} (chmod, chown)"
    shown = quoted(culprit)
    if owner == os.geteuid():
        return f"chmod u+{bits} {shown}"
    user = _user(owner)
    return (
        f"run as {user}, who owns {shown}, "
        f"or let {user} open it to your group: chmod g+{bits} {shown}"
    )


@contextmanager
def reading(what: str, path: Path) -> Iterator[None]:
    """Turn an error of the operating system into an ArtifactError with advice on its cause.

    Args:
        what: What the error is about.
        path: What is being read, for errors that do not name a file.
    """
    try:
        yield
    except OSError as error:
        found = of_error(str(path), path, error)
        why = f"{found.path}: {error.strerror}"
        raise ArtifactError(what, why, advice(what, [found])) from None


def in_the_way(path: Path) -> str:
    """Return the command that moves away what keeps a file or folder from being at `path`.

    This is a file where a folder above `path` should be, or what is at `path` itself.
    """
    culprit = path
    for step in path.parents:
        if os.path.lexists(step) and not step.is_dir():
            culprit = step  # in the end the uppermost
    return f"move away what is there: {move_aside(culprit)}"


def move_aside(path: Path) -> str:
    """Return the command that moves `path` into the working folder and overwrites nothing there.

    The new name is hardly ever taken: it holds a digest of the whole path, so two files of one
    name get two new names. Where it is taken, `-n` leaves everything as it is.
    """
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    target = Path(f"{path.name[:_MAX_KEPT_NAME]}.moved-aside-{digest}")
    return f"mv -n {quoted(path)} {quoted(target, './')}"


def _closed(path: Path, write: bool) -> Path:
    """Return what keeps the current user from `path`.

    This is the first folder on the way that may not be entered, or else `path`. If `path` does not
    exist and `write` is true, it is the nearest folder above.
    """
    nearest = path
    for step in [*reversed(path.parents), path]:
        if not os.path.lexists(step):
            return nearest if write else step
        nearest = step
        if step != path and os.path.isdir(step) and not _may(step, os.X_OK):
            return step
    if write and nearest == path and _may(path, os.W_OK):
        return path.parent  # renaming or removing `path` needs permission for its folder
    return nearest


def quoted(path: Path, before: str = "") -> str:
    """Return `before` and `path`, quoted for a shell, with its escapes for controls."""
    text = f"{before}{path}"
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(map(_escaped, text)) + "'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
