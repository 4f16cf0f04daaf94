"""A real server and worker for the attacks, and a crawl of one archive."""

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


@pytest.fixture
def read(run, tmp_path, reads_in_this_process):
    """read(bytes) → (documents by name, failures as (address, detail))."""

    def go(data: bytes, **settings):
        path = tmp_path / "a.warc"
        path.write_bytes(data)
        source = {"kind": "files", "name": "mine", "paths": [str(path)]}
        artifact = run("crawl", {"sources": [source | settings]})
        documents = {}
        for row in artifact.read("documents").to_pylist():
            name = row["url"].removeprefix("https://example.org/")
            documents[name] = (row["body"], row["truncated"])
        failures = [
            (row["url"].rpartition("/")[2], row["detail"])
            for row in artifact.read("failures").to_pylist()
        ]
        return documents, failures

    return go
