"""The secret of this folder's Prefect server: who knows it may use the API, and so run code as its owner.

Each server has a new one. It is kept in a file that only its owner reads, and given to the server, to
the worker and through it to runs as environment variables, which other users cannot read either.
"""

from __future__ import annotations

import base64
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from data_contracts import GroundupError
from flows import private_home
from flows.home import Home, writing

USER = "groundup"  # basic authentication wants "user:password"
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def path(at: Home) -> Path:
    """The file that holds the secret."""
    return at.prefect / "api-secret"


def read_or_make(at: Home) -> str:
    """The secret, "groundup:…"; made if there is none yet.

    Raises:
        GroundupError: the file cannot be written or read, or others may have read it.
    """
    with writing(at):
        private_home.prepare(at)
        if not path(at).is_symlink() and not path(at).exists():
            _make(at)
        return _read(at)


def forget(at: Home) -> None:
    """Delete the secret, so that the next server gets a new one and the old one opens nothing."""
    path(at).unlink(missing_ok=True)


def basic(secret: str) -> str:
    """The secret as the header `Authorization: Basic …` and both UIs of Prefect carry it."""
    return base64.b64encode(secret.encode()).decode()


def _make(at: Home) -> None:
    """Two processes that make it at once end up with one secret, and nobody sees half of one."""
    new = path(at).with_name(f"api-secret.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{USER}:{secrets.token_urlsafe(32)}")
    try:
        with suppress(FileExistsError):
            os.link(new, path(at))
    finally:
        new.unlink()


def _read(at: Home) -> str:
    descriptor = os.open(path(at), os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor) as file:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            raise _unusable(at, f"belongs to user {found.st_uid}, not to you")
        if found.st_mode & OTHERS:
            mode = stat.S_IMODE(found.st_mode)
            raise _unusable(at, f"is open to others (mode {mode:o}): they may know it")
        secret = file.read().strip()
    user, colon, password = secret.partition(":")
    if not (user and colon and len(password) >= 16 and secret.isascii() and secret.isprintable()):
        raise _unusable(at, "holds no secret of the form user:password with 16 or more characters")
    return secret


def _unusable(at: Home, why: str) -> GroundupError:
    fix = f"groundup down; rm {path(at)}; groundup up makes a new one"
    return GroundupError(f"the API secret {path(at)}", why, fix)
