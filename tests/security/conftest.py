"""A real server and worker for the attacks."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.conftest import Groundup, free_port


@pytest.fixture(scope="session")
def attacked() -> Iterator[Groundup]:
    """`groundup up` in a folder that others may enter, so that only its file modes protect it."""
    folder = Path(tempfile.mkdtemp(prefix="groundup-attacked-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "work").mkdir()
    started = Groundup(folder / "home", free_port(), folder / "work")
    before = os.umask(0o022)
    try:
        started.run("up")
        yield started
    finally:
        os.umask(before)
        started.run("down", check=False)
        shutil.rmtree(folder)
