"""The secret of the home's Prefect server. Whoever knows it may run code as the server's owner.

Each server gets a new secret. A file that only the owner can read keeps it. The server and the
worker get it as an environment variable, and flow runs get it from the worker. Other users cannot
read the environment of these processes.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from data_contracts import GroundupError
from data_contracts.store import repair
from flows import private_home
from flows.home import Home, writing

USER = "groundup"  # basic authentication expects "user:password"
MIN_PASSWORD_CHARS = 16
MAX_CHARS = 4096
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def path(home: Home) -> Path:
    """Return the file that holds the secret."""
    return home.prefect / "api-secret"


def read_or_make(home: Home) -> str:
    """Return the secret, "groundup:…". Creates one if there is none.

    Raises:
        GroundupError: The file cannot be written or read, or others may have read it.
    """
    with writing(home):
        private_home.prepare(home)
        if not path(home).is_symlink() and not path(home).exists():
            _make(home)
        return _read(home)


def forget(home: Home) -> None:
    """Delete the secret: the next server gets a new one, and the old one opens nothing."""
    path(home).unlink(missing_ok=True)


def is_held_by(home: Home, text: str) -> bool:
    """Return whether `text` holds the secret that the home has now, in a form that is undone.

    Such forms are base64 and percent-encoding, of the secret or of its password alone. Text that is
    JSON is read as such, too, for its escapes hide any character.
    """
    try:
        secret = _read(home)
    except (OSError, GroundupError):  # there is none that could be used
        return False
    _, _, password = secret.partition(":")
    texts = _texts_in(text)
    texts += [unquote(one) for one in texts]
    return any(form in one for form in _forms(secret, password) for one in texts)


def _forms(*secrets_of_ours: str) -> list[str]:
    """Return how a secret may be written. Base64 has an alphabet for URLs, and padding or none."""
    forms = []
    for secret in secrets_of_ours:
        encoded = basic(secret).rstrip("=")
        forms += [secret, encoded, encoded.replace("+", "-").replace("/", "_")]
    return forms


def _texts_in(text: str) -> list[str]:
    """Return the text and, if it is JSON, every text in it, keys as well."""
    texts = [text]
    try:
        left = [json.loads(text)]
    except (ValueError, RecursionError):
        return texts
    while left:
        value = left.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
    return texts


def basic(secret: str) -> str:
    """Encode the secret as `Authorization: Basic …` and both UIs of Prefect expect it."""
    return base64.b64encode(secret.encode()).decode()


def _make(home: Home) -> None:
    """Write a new secret.

    Linking a finished file makes this atomic: processes that do it at the same time end up with
    one secret, and none reads half of one.
    """
    new = path(home).with_name(f"api-secret.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{USER}:{secrets.token_urlsafe(32)}")
    try:
        with suppress(FileExistsError):
            os.link(new, path(home))
    finally:
        new.unlink()


def _read(home: Home) -> str:
    descriptor = os.open(path(home), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor) as file:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            raise _unusable(home, f"belongs to user {found.st_uid}, not to you")
        if found.st_mode & OTHERS:
            mode = stat.S_IMODE(found.st_mode)
            raise _unusable(home, f"is open to others (mode {mode:o}): they may know it")
        secret = file.read(MAX_CHARS).strip()
    if not _is_well_formed(secret):
        raise _unusable(
            home,
            "holds no secret of the form user:password "
            f"with {MIN_PASSWORD_CHARS} or more characters",
        )
    return secret


def _is_well_formed(secret: str) -> bool:
    user, colon, password = secret.partition(":")
    if not user or not colon or len(password) < MIN_PASSWORD_CHARS:
        return False
    return secret.isascii() and secret.isprintable()


def _unusable(home: Home, why: str) -> GroundupError:
    unusable = path(home).with_name(f"{path(home).name}.unusable")
    move = f"mv {repair.quoted(path(home))} {repair.quoted(unusable)}"
    fix = f"groundup down; {move}; groundup up makes a new one"
    return GroundupError(f"the API secret {path(home)}", why, fix)
