"""Homes that groundup made for this user, or that the user has accepted.

What a home holds decides what runs: Prefect's database names entry points and commands, and a ref
names the recipe that a run follows. A folder that somebody has cloned or unpacked may hold a home
that a stranger filled. So groundup records the homes that it makes, in a file outside of them, and
starts nothing from any other home that holds something.

A record names the folder (path, device and inode) and a random token that the home keeps. The path
alone would also fit a folder that took its place, and the token alone would fit a copy.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_contracts import ConfigError, GroundupError
from flows.home import Home, writing

VARIABLE = "GROUNDUP_TRUST_HOME"
OPTION = "--trust-home"
TOKEN_FILE = "home-token"
TOKEN_CHARS = 32
MAX_EMPTY_FOLDERS = 100
MAX_RECORD_BYTES = 16 << 20
# The folders of a home whose content decides what runs; "" is the home itself.
DECIDING = ("", "prefect", "store", "store/refs", "store/names", "store/objects")
# What decides, too: Prefect's database with its journals, and all that is in the folders of refs.
DATABASES = tuple(f"prefect/prefect.db{end}" for end in ("", "-wal", "-shm", "-journal"))
REFS = ("store/refs", "store/names")
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

# Homes that this process has admitted. A record that cannot be written would otherwise refuse the
# home that the same command has just made.
_admitted: set[tuple[str, int, int]] = set()


@dataclass(frozen=True)
class KnownHome:
    """A line of the record.

    Attributes:
        token: The content of TOKEN_FILE in the home.
        path: The absolute path of the home.
        device: The device of the folder, which may change when the machine starts again.
        inode: The inode of the folder.
    """

    token: str
    path: str
    device: int
    inode: int

    @property
    def folder(self) -> tuple[str, int, int]:
        """What tells this folder from all others while the machine runs."""
        return self.path, self.device, self.inode

    def is_at(self, here: KnownHome) -> bool:
        """Return whether this entry names the home that `here` describes, even if it was moved."""
        is_same_folder = (self.token, self.inode) == (here.token, here.inode)
        return is_same_folder and (self.path == here.path or self.device == here.device)


def record_file() -> Path:
    """Return the file of known homes: `groundup/known_homes` in the user's state folder.

    Raises:
        OSError: This user has no home directory.
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification ignores relative paths
        try:
            user_home = Path.home()
        except RuntimeError:
            raise OSError("this user has no home directory; set HOME or XDG_STATE_HOME") from None
        if not user_home.is_absolute() or os.environ.get("HOME") == "":
            raise OSError("HOME is not an absolute path; set it, or XDG_STATE_HOME")
        base = str(user_home / ".local" / "state")
    return Path(base) / "groundup" / "known_homes"


def admit(home: Home, trust: bool = False, cache: Path | None = None) -> list[str]:
    """Allow a home to start something, or refuse it. A home that holds nothing is recorded as new.

    Args:
        home: The home, which exists and belongs to this user.
        trust: Whether to accept it whoever filled it; GROUNDUP_TRUST_HOME=1 says so, too.
        cache: The folder of caches. It decides nothing that runs, and a preview may have written it
            into the home before there was one.

    Returns:
        A line for people about what was accepted or could not be recorded.

    Raises:
        GroundupError: The home holds something, and nothing says that this user made it.
        ConfigError: GROUNDUP_TRUST_HOME is neither 0 nor 1.
    """
    is_trusted = _is_trusted_by_environment() or trust
    if is_known(home):
        return []
    if is_trusted:
        return _record(home) or [f"the home {home.path} is trusted from now on"]
    if not _holds_something(home.path, cache):
        return _record(home)
    raise _refusal(home)


def is_known(home: Home) -> bool:
    """Return whether the home is recorded, or was admitted by this process.

    A home to which others may write is not, nor one with such a folder, database or ref in it: they
    may have filled it since. A home that was moved is recorded under its new path.
    """
    here = _here(home)
    if here.folder in _admitted:
        return True
    if open_to_writers(home):
        return False
    try:
        matching = [entry for entry in _entries() if here.token and entry.is_at(here)]
    except OSError:
        return False
    if not matching or any(open_refs(home)):  # there may be many, so they come last
        return False
    if all(entry.path != here.path for entry in matching):
        _append(here)
    _admitted.add(here.folder)
    return True


def _is_trusted_by_environment() -> bool:
    value = os.environ.get(VARIABLE, "")
    if value not in ("", "0", "1"):
        raise ConfigError(
            f"{VARIABLE}={value}", "is neither 0 nor 1", f"set {VARIABLE}=1, or unset it"
        )
    return value == "1"


def _here(home: Home, token: str | None = None) -> KnownHome:
    found = home.path.stat()
    known_token = _token(home) if token is None else token
    return KnownHome(known_token, str(home.path), found.st_dev, found.st_ino)


def _token(home: Home) -> str:
    """Return the token that the home keeps; "" if there is none that is ours."""
    try:
        text = _content_of(home.path / TOKEN_FILE, TOKEN_CHARS + 1, os.O_NOFOLLOW)
    except OSError:
        return ""
    token = text.strip()
    return token if len(token) == TOKEN_CHARS and token.isalnum() else ""


def _record(home: Home) -> list[str]:
    """Record the home under a new token.

    The token reaches the home after the record: who finds it there finds it recorded, too.
    """
    here = _here(home, secrets.token_hex(TOKEN_CHARS // 2))
    _admitted.add(here.folder)
    problem = _append(here)
    if problem:
        return [
            f"the home {home.path} cannot be recorded as yours ({problem}): the next command will "
            f"ask for {OPTION} or {VARIABLE}=1, unless XDG_STATE_HOME names a folder that can be "
            "written and lasts"
        ]
    new = home.path / f"{TOKEN_FILE}.{secrets.token_hex(4)}"
    with writing(home):
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{here.token}\n")
        new.replace(home.path / TOKEN_FILE)
    return []


def _append(entry: KnownHome) -> str | None:
    """Add a line to the record; return why that is impossible, if it is.

    The line begins with a line break, so that a line cut short by a full disk spoils no other.
    """
    line = f"\n{json.dumps(asdict(entry))}\n"
    try:
        path = record_file()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o600)
        try:
            _require_private(descriptor, path)
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        return _reason(error)
    return None


def _entries() -> Iterator[KnownHome]:
    """Yield the lines of the record. Lines that are damaged count for nothing."""
    try:
        text = _content_of(record_file(), MAX_RECORD_BYTES)
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            values: Any = json.loads(line)
            entry = KnownHome(**values)
        except (ValueError, TypeError, RecursionError):
            continue
        yield entry


def _content_of(path: Path, max_bytes: int, flags: int = 0) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags)
    with os.fdopen(descriptor, "rb") as file:
        _require_private(descriptor, path)
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(f"{path} has more than {max_bytes:,} bytes")
    return content.decode("utf-8", "replace")


def _require_private(descriptor: int, path: Path) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"{path} is not a regular file")
    if found.st_uid != os.geteuid():
        raise OSError(f"{path} belongs to user {found.st_uid}, not to you")
    if found.st_mode & OTHERS_WRITE:
        raise OSError(f"others may write to {path}")


def _holds_something(home: Path, cache: Path | None) -> bool:
    """Return whether anything but a cache and empty folders is in a home.

    A folder with files of another kind is no home either: all in it would become private.
    """
    looked_at = 0
    try:
        left = [path for path in home.iterdir() if path.resolve() != cache]
        while left:
            found = left.pop()
            looked_at += 1
            is_folder = found.is_dir() and not found.is_symlink()
            if not is_folder or looked_at > MAX_EMPTY_FOLDERS:
                return True
            left += found.iterdir()
    except OSError:  # a folder that cannot be read
        return True
    return False


def open_to_writers(home: Home) -> list[Path]:
    """Return what others may write to: the home, or the folders and databases that decide."""
    found = []
    for name in (*DECIDING, *DATABASES):
        path = home.path / name
        try:
            state = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if _is_theirs(state):
            found.append(path)
    return found


def open_refs(home: Home) -> Iterator[Path]:
    """Yield the refs, and the folders of refs, to which others may write, as they are found."""
    left = [str(home.path / name) for name in REFS]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    if _is_theirs(entry.stat(follow_symlinks=False)):
                        yield Path(entry.path)
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
        except (FileNotFoundError, NotADirectoryError):  # a process that works here deleted it
            continue


def _is_theirs(state: os.stat_result) -> bool:
    """Return whether others may write to it. A link has no permissions of its own."""
    is_theirs = state.st_uid != os.geteuid() or bool(state.st_mode & OTHERS_WRITE)
    return is_theirs and not stat.S_ISLNK(state.st_mode)


def _refusal(home: Home) -> GroundupError:
    return GroundupError(
        f"the home {home.path}",
        f"is not one that groundup made for you: {_why_unknown(home)}. "
        "What a home holds decides what is run, and somebody else may have filled this one",
        f"if you trust it, give the same command once with {OPTION} (or set {VARIABLE}=1); "
        "nothing in it is lost. "
        "If not, name another folder: GROUNDUP_HOME=FOLDER groundup …",
    )


def _why_unknown(home: Home) -> str:
    opened = open_to_writers(home)
    if opened:
        what = "it" if home.path in opened else str(opened[0])
        return f"other users of this machine may write to {what}"
    here = _here(home)
    try:
        path = record_file()
        same_token = [entry for entry in _entries() if here.token and entry.token == here.token]
    except OSError as error:
        return f"the record of your homes cannot be read ({_reason(error)})"
    opened_ref = next(open_refs(home), None) if any(one.is_at(here) for one in same_token) else None
    if opened_ref:
        return f"other users of this machine may write to {opened_ref}"
    if same_token:
        return f"it is a copy of {same_token[-1].path}, or was put in its place"
    return (
        f"it is not in {path}, where groundup records the homes that it makes "
        "(versions before this record did not)"
    )


def _reason(error: OSError) -> str:
    if error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return error.strerror or str(error)
