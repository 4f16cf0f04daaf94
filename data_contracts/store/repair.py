"""What a person can do about a fault of the store: the advice follows from the cause, and none of it deletes anything.

What lacks a permission wants a permission; what is damaged wants its copy back, or to be made again, and that costs time; what does not
belong there can be moved. Artifacts leave the store through `groundup rm` alone, which keeps them aside first.
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

from data_contracts.errors import ArtifactError, make_again

Cause = Literal["content", "permission", "stray", "disk"]
_PERMISSION = (errno.EACCES, errno.EPERM)
_SHOWN = 3  # commands of one kind
_MAX_KEPT_NAME = 50  # characters: a file name may have 255 bytes, and moving one aside extends it


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong with a file of an artifact."""

    what: str
    cause: Cause
    path: Path


def of_error(what: str, path: Path, error: OSError) -> Damage:
    """The damage behind an error of the operating system."""
    cause: Cause = "permission" if error.errno in _PERMISSION else "disk"
    culprit = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
    return Damage(f"{what} cannot be read: {error.strerror}", cause, culprit)


def advice(
    artifact: str, found: Sequence[Damage], stage: str | None = None, seconds: float | None = None
) -> str:
    """How to repair `artifact` ("type/id"). stage and seconds: how it was made and how long that took, if known."""
    parts = list(dict.fromkeys(permission(one.path) for one in found if one.cause == "permission"))[
        :_SHOWN
    ]
    if any(one.cause == "disk" for one in found):
        parts.append("check the disk (dmesg), then run the command again")
    strays = [one.path for one in found if one.cause == "stray"]
    parts += [f"move it out of the artifact: {move_aside(path)}" for path in strays[:_SHOWN]]
    if any(one.cause == "content" for one in found):
        parts.append(f"restore it from a copy of the store, or {rebuild(artifact, stage, seconds)}")
    return "; ".join(parts)


def rebuild(artifact: str, stage: str | None = None, seconds: float | None = None) -> str:
    """Set aside what is there, and make it again; with what that costs."""
    again = make_again(stage).removeprefix("make it again: ")
    cost = "" if seconds is None else f"; making it took {_duration(seconds)}"
    return f"make it again: groundup rm {artifact}   (keeps it aside)   then {again}{cost}"


def permission(path: Path, write: bool = False) -> str:
    """The command that lets the current user read (or write) `path`, and who can give it."""
    culprit = _closed(path, write)
    bits = ("rw" if write else "r") + ("X" if culprit.is_dir() else "")
    try:
        owner = culprit.lstat().st_uid
    except OSError:
        return f"let yourself reach {quoted(culprit)} (chmod, chown)"
    shown = quoted(culprit)
    if owner == os.geteuid():
        return f"chmod u+{bits} {shown}"
    return f"run as {_user(owner)}, who owns {shown}, or let {_user(owner)} open it to your group: chmod g+{bits} {shown}"


@contextmanager
def reading(what: str, path: Path) -> Iterator[None]:
    """Turns an error of the operating system into an ArtifactError that says what to do about its cause."""
    try:
        yield
    except OSError as error:
        found = of_error(str(path), path, error)
        raise ArtifactError(
            what, f"{found.path}: {error.strerror}", advice(what, [found])
        ) from None


def in_the_way(path: Path) -> str:
    """The command that moves away what is where a file or folder at `path` should be: a file above it, or itself."""
    files = [step for step in reversed(path.parents) if os.path.lexists(step) and not step.is_dir()]
    return f"move away what is there: {move_aside(files[0] if files else path)}"


def move_aside(path: Path) -> str:
    """The command that moves `path` into the working folder and overwrites nothing there.

    The new name is hardly ever taken: it holds a digest of the whole path, so two files of one
    name get two new names. Where it is taken, `-n` leaves everything as it is.
    """
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    target = Path(f"{path.name[:_MAX_KEPT_NAME]}.moved-aside-{digest}")
    return f"mv -n {quoted(path)} {quoted(target, './')}"


def _closed(path: Path, write: bool) -> Path:
    """The first folder on the way to `path` that lets the current user not pass, else `path`; of what is not there, the folder above."""
    nearest = path
    for step in [*reversed(path.parents), path]:
        if not os.path.lexists(step):
            return nearest if write else step
        nearest = step
        if step != path and os.path.isdir(step) and not _may(step, os.X_OK):
            return step
    if write and nearest == path and _may(path, os.W_OK):
        return path.parent  # to rename or remove `path` takes a right to its folder
    return nearest


def quoted(path: Path, before: str = "") -> str:
    """`before` and `path` for a command line; controls of a terminal as the shell's own escapes."""
    text = f"{before}{path}"
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(_escaped(character) for character in text) + "'"


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
