"""What all tests share: a store in a temporary folder, and a stage run against it as the flows would run it."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import stages
from data_contracts import Artifact, Store, current
from stages.run import run_stage
from tests.data_contracts import publishing

REPOSITORY = Path(__file__).parents[1]
IN_MEMORY = Path("/dev/shm")
ROOM = 4 << 30  # bytes


def pytest_configure() -> None:
    """Temporary folders go to memory where there is room for that: tests write thousands of small files, and a disk takes its time."""
    kept = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = (
        f"{REPOSITORY}{os.pathsep}{kept}" if kept else str(REPOSITORY)
    )  # what tests start finds `tests`
    gc.disable()  # while importing: what torch and transformers make stays, and the search for garbage takes a third of the time
    if IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))


def pytest_collection_finish() -> None:
    gc.freeze()  # what is imported is never looked through again
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is remembered between runs is not the user's own."""
    os.environ["GROUNDUP_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def publish(store: Store) -> Callable[..., Artifact]:
    return publisher(store)


def publisher(store: Store) -> Callable[..., Artifact]:
    """publish("clean_documents", documents=[{…}], rejects=[…], files={"config.json": b"…"}) → a real artifact, checked as always.

    Conservation is satisfied by an input with the same rows that is made up on the spot.
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
        artifact, _ = store.publish(artifact_type, identity, inputs, {}, fill)  # type: ignore[arg-type]
        return artifact

    return make


class _Source:
    """Stands in for the input of a stage in the conservation check: it has an artifact type, an id and the ids of its rows."""

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
    """run("clean", {"workers": 1}, raw_documents=artifact) → what the stage published."""

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
