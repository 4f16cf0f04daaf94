"""Calls a function as a user for whom permissions count.

Run by root, a test of permissions cannot fail. The process forks and drops to uid 65534 without
groups, like `setpriv --reuid 65534 --regid 65534 --clear-groups`. It starts no other program,
because the interpreter may be in a folder that only its owner can enter.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest

NOBODY = 65534
CHECKOUT = Path(__file__).parents[2]


def _others_can_read(folder: Path) -> bool:
    packages = [path for path in folder.iterdir() if path.name.isidentifier() and path.is_dir()]
    folders = [folder, *folder.parents, *packages]
    return all(one.stat().st_mode & stat.S_IXOTH for one in folders)


def as_nobody(function: Callable[[], Any]) -> Any:
    """Call the function as user `nobody` and return its value (plain JSON). Raises if it does.

    Skips the test where the other user cannot read the code that the function needs: in a checkout
    that was made with umask 077, for example.
    """
    if os.geteuid() == 0 and not _others_can_read(CHECKOUT):
        pytest.skip(f"{CHECKOUT} is closed to other users: chmod -R o+rX")
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        os.write(write, json.dumps(_outcome(function)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        outcome = json.loads(pipe.read())
    os.waitpid(child, 0)
    assert "raised" not in outcome, outcome["raised"]
    return outcome["returned"]


def _outcome(function: Callable[[], Any]) -> dict[str, Any]:
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        return {"returned": function()}
    except BaseException:
        return {"raised": traceback.format_exc()}


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user can enter: those of pytest are private."""
    folder = Path(tempfile.mkdtemp(prefix="groundup-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        rmtree(folder)


def give_to_nobody(folder: Path) -> None:
    """Give the folder and everything in it to the other user."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
