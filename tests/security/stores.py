"""A small store: raw_documents, clean_documents made from them, and a run `demo` with both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec

from data_contracts import Artifact, Store, current
from data_contracts.store.remote import RemoteStore
from tests.data_contracts import publishing
from tests.data_contracts.samples import good_rows

RAW, CLEAN = "raw_documents", "clean_documents"


def fill(store: Store) -> None:
    """Publish both and let `demo` point at them."""
    raw = publish_raw(store)
    store.point("demo", RAW, raw, "test")
    store.point("demo", CLEAN, publish_clean(store, raw), "test")


def publish_raw(store: Store, name: str = "a") -> Artifact:
    """Publish five pages. Another name gives another artifact."""
    rows = good_rows(current(RAW), "documents", 5)

    def make(draft: Any) -> dict[str, Any]:
        draft.write("documents", rows)
        return {"figures": {"pages": 5}}

    return store.publish(RAW, publishing.identity(RAW, {"name": name}), {}, {"name": name}, make)[0]


def publish_clean(store: Store, raw: Artifact) -> Artifact:
    """The same pages, one of them rejected."""
    ids = raw.read("documents", ["id"])["id"].to_pylist()

    def make(draft: Any) -> dict[str, Any]:
        for table, chosen in (("documents", ids[1:]), ("rejects", ids[:1])):
            rows = good_rows(current(CLEAN), table, len(chosen))
            draft.write(table, [row | {"id": key} for row, key in zip(rows, chosen, strict=True)])
        return {"rejected": {"too_short": 1}}

    identity = publishing.identity(CLEAN, {"least": 3}, **{RAW: raw.id})
    return store.publish(CLEAN, identity, {RAW: raw}, {"least": 3, "workers": 2}, make)[0]


class Entries:
    """Reads and writes files of a folder or objects of a bucket without groundup."""

    def __init__(self, store: Store):
        self.files, self.root = fsspec.core.url_to_fs(store.location, use_listings_cache=False)

    def read(self, key: str) -> bytes:
        return self.files.cat_file(f"{self.root}/{key}")

    def write(self, key: str, data: bytes) -> None:
        self.files.pipe_file(f"{self.root}/{key}", data)

    def change_json(self, key: str, change: Callable[[dict[str, Any]], Any]) -> None:
        value = json.loads(self.read(key))
        change(value)
        self.write(key, json.dumps(value, indent=1).encode())


def manifest_key(artifact: Artifact) -> str:
    return f"objects/{artifact}/manifest.json"


def ref_key(output: str, number: int = 1) -> str:
    return f"refs/demo/{output}/{number:08d}.json"


def forget_seals(store: Store) -> None:
    """Turn a store into one of release 0.1, in which nothing contains a manifest's digest."""
    entries = Entries(store)
    for output in (RAW, CLEAN):
        entries.change_json(
            ref_key(output), lambda ref: (ref.pop("manifest_sha256"), ref.pop("removed"))
        )
    clean = store.open(*store.resolve(f"demo/{CLEAN}"), verify=False)
    entries.change_json(
        manifest_key(clean), lambda manifest: manifest["inputs"][RAW].pop("manifest_sha256")
    )


def in_bucket(tmp_path: Path) -> RemoteStore:
    """A store behind a URL, in the memory of this process; each test has its own."""
    return RemoteStore(f"memory://{tmp_path.name}", tmp_path / "cache")
