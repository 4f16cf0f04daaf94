"""Prefect's database as `make setup` leaves it, for the homes of tests.

A server that finds none makes it, in many times as long as it needs to start. All processes of a
test session share one copy, which the first of them makes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from data_contracts import GroundupError
from flows import known_homes
from flows.home import Home

REPOSITORY = Path(__file__).parents[1]
SHARED = "TESTS_SHARED"  # names the folder that the processes of a session share
FILES = ("prefect.db", "prefect.db-wal", "memo_store.toml")
SET_UP = """
from flows.home import current_home
from flows.prefect_host.server import running_server
with running_server(current_home(), "prefect"):
    pass
"""


def copy_into(path: Path) -> None:
    """Put the database into a home that has none and that this user made, or makes here."""
    home = Home(path)
    if (home.prefect / FILES[0]).exists():
        return
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        known_homes.admit(home)
    except GroundupError:
        return  # a test has filled it, and groundup will refuse it
    home.prefect.mkdir(mode=0o700, exist_ok=True)
    for file in _made().iterdir():
        shutil.copy(file, home.prefect)


def _made() -> Path:
    """The folder with the files, which are made if this is the first call of the session."""
    shared = Path(os.environ[SHARED])
    made = shared / "prefect"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            _make(shared / "home").rename(made)
    return made


def _make(home: Path) -> Path:
    """Start a server in a new home, as infra/install.sh does, and keep the files that it leaves."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "GROUNDUP_"))}
    settings = {"GROUNDUP_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", SET_UP], env=kept | settings, cwd=REPOSITORY, check=True)
    files = home.with_name("new")
    files.mkdir(mode=0o700)
    for name in FILES:
        if (home / "prefect" / name).exists():
            shutil.copy(home / "prefect" / name, files)
    return files
