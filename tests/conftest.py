"""Fixtures of all tests: a store in a temporary folder, and stages that run against it."""

from __future__ import annotations

import gc
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import stages
from data_contracts import Artifact, Store, current
from stages.run import run_stage
from tests import prefect_database
from tests.data_contracts import publishing

REPOSITORY = Path(__file__).parents[1]
IN_MEMORY = Path("/dev/shm")
FREE_BYTES = 4 << 30
SLOW_FILE = re.compile(r"^pytestmark = \[?\s*pytest\.mark\.slow\b", re.MULTILINE)


def pytest_configure(config: pytest.Config) -> None:
    """Prepare this process and those that tests start.

    Temporary folders go to memory where enough is free: tests write thousands of small files, which
    is slow on a disk.
    """
    kept = os.environ.get("PYTHONPATH")
    paths = [str(REPOSITORY), kept] if kept else [str(REPOSITORY)]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # child processes import `tests`
    # Until all is imported: torch and transformers make many objects that stay, and looking for
    # garbage among them takes a third of the time.
    gc.disable()
    if IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > FREE_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))
    if not _is_worker(config):  # workers inherit it
        folder = os.environ.get("PYTEST_DEBUG_TEMPROOT")
        os.environ[prefect_database.SHARED] = tempfile.mkdtemp(prefix="groundup-test-", dir=folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not _is_worker(config):
        shutil.rmtree(os.environ.pop(prefect_database.SHARED))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files of slow tests where those do not run: their imports take seconds."""
    if "not slow" not in config.option.markexpr or collection_path.suffix != ".py":
        return None
    return True if SLOW_FILE.search(collection_path.read_text("utf-8")) else None


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_collection_finish() -> None:
    gc.freeze()  # the collector never looks at what is imported
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the home and the caches of the user out of the tests."""
    os.environ["GROUNDUP_HOME"] = str(tmp_path_factory.mktemp("home") / "home")
    os.environ["GROUNDUP_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    # One record of known homes: the home in which the shared database is made is everybody's.
    os.environ["XDG_STATE_HOME"] = os.path.join(os.environ[prefect_database.SHARED], "state")


@pytest.fixture
def reads_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `crawl` read files here. The process that does it elsewhere takes half a second to start.

    That process is the subject of tests/security/test_source_files.py.
    """

    def rows_here(read: Callable[..., Iterator[Any]], *arguments: Any, **_: Any) -> Iterator[Any]:
        yield from read(*arguments)

    monkeypatch.setattr("stages.crawl.files_source.rows_apart", rows_here)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def publish(store: Store) -> Callable[..., Artifact]:
    return publisher(store)


def publisher(store: Store) -> Callable[..., Artifact]:
    """Return a function that publishes an artifact, with all the usual checks.

    For example: publish("clean_documents", documents=[{…}], rejects=[…], files={"x.json": b"…"}).
    An input with the same rows is made up, so that conservation holds.
    """

    def make(
        artifact_type: str, *, files: dict[str, bytes] | None = None, **tables: list[dict[str, Any]]
    ) -> Artifact:
        def fill(draft: Any) -> dict[str, Any]:
            for table, rows in tables.items():
                draft.write(table, rows)
            for path, data in (files or {}).items():
                draft.path(path).write_bytes(data)
            return {}

        inputs = {}
        if rule := current(artifact_type).conservation:
            source, table = rule.source.split(".")
            inputs[source] = _Source(
                source, table, [row["id"] for name in rule.into for row in tables.get(name, [])]
            )
        config = {"tables": repr(tables), "files": repr(files)}
        identity = publishing.identity(
            artifact_type, config, **{name: one.id for name, one in inputs.items()}
        )
        given: Any = inputs
        return store.publish(artifact_type, identity, given, {}, fill)[0]

    return make


class _Source:
    """Replaces the input of a stage in the conservation check, with the ids of its rows."""

    id, digest = "0" * 24, "0" * 64

    def __init__(self, artifact_type: str, table: str, ids: list[str]):
        self.artifact_type, self._table, self._ids = artifact_type, table, ids

    def batches(self, table: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
        assert (table, columns) == (self._table, ["id"])
        yield pa.record_batch({"id": pa.array(self._ids, pa.string())})


@pytest.fixture
def run(store: Store) -> Callable[..., Artifact]:
    return runner(store)


def runner(store: Store) -> Callable[..., Artifact]:
    """Return a function that runs a stage and returns the artifact that it published.

    For example: run("clean", {"workers": 1}, raw_documents=artifact).
    """

    def go(
        name: str,
        settings: dict[str, Any] | None = None,
        *,
        as_of: str | None = None,
        **inputs: Artifact,
    ) -> Artifact:
        stage = stages.stage(name)
        return run_stage(
            store, stage, stage.config_class.parse(settings or {}, name), inputs, as_of=as_of
        )[0]

    return go
