"""raw_documents 1.x said in each document when it was fetched; 2.x says it beside the documents."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime

import pytest

from data_contracts import Artifact, Contracts, Identity, Store
from data_contracts.contract import ROOT
from stages.digests import digest
from tests.golden.clean import document

FETCHED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
FETCH = {
    "fetched_at": FETCHED,
    "etag": '"1"',
    "last_modified": "today",
    "warc_file": "warc/site-00000.warc.gz",
    "warc_offset": 7,
}


@pytest.fixture
def old(tmp_path) -> Artifact:
    """An artifact of version 1: two fetched pages and, between them, a local file."""
    (tmp_path / "contracts" / "raw_documents").mkdir(parents=True)
    shutil.copy(ROOT / "raw_documents" / "v1.yaml", tmp_path / "contracts" / "raw_documents")
    store = Store(tmp_path / "store", Contracts(tmp_path / "contracts", {}))
    pages = [document(n, "text/plain", f"page {n}".encode(), None) for n in range(3)]
    failure = {
        "url": "http://example.org/x",
        "source": "golden",
        "reason": "timeout",
        "detail": "none",
        "depth": 0,
    }

    def make(draft):
        draft.write(
            "documents", [pages[0] | FETCH, pages[1], pages[2] | FETCH | {"warc_offset": 99}]
        )
        draft.write("failures", [failure])
        draft.path("warc/site-00000.warc.gz").write_bytes(b"an archive")
        return {}

    made, _ = store.publish(
        "raw_documents", Identity("crawl", 1, "raw_documents 1.0.0", {}), {}, {}, make
    )
    return Store(store.root).open("raw_documents", made.id)


def test_an_artifact_of_version_1_is_read_as_version_2_with_its_fetches_beside_its_documents(old):
    assert str(old.version) == "1.0.0"
    assert old.require(2) is None
    documents = old.read("documents")
    assert not {"fetched_at", "etag", "last_modified", "warc_file", "warc_offset"} & set(
        documents.column_names
    )
    assert [row["body"] for row in documents.to_pylist()] == [b"page 0", b"page 1", b"page 2"]
    fetches = old.read("fetches").to_pylist()
    assert fetches == [
        {"id": digest("golden", f"http://example.org/{n}")} | FETCH | {"warc_offset": offset}
        for n, offset in ((0, 7), (2, 99))
    ]
    assert (old.rows("documents"), old.rows("fetches"), old.rows("failures")) == (3, 2, 1)
    assert [row["reason"] for row in old.read("failures").to_pylist()] == ["timeout"]
    assert old.read("fetches", ["warc_offset"]).column_names == ["warc_offset"]
    assert len(old.files("warc")) == 1
    assert old.check() == 4


def test_clean_makes_the_same_of_both_versions(old, run, publish):
    pages = [document(n, "text/plain", f"page {n}".encode(), None) for n in range(3)]
    new = publish(
        "raw_documents",
        documents=pages,
        fetches=[{"id": pages[0]["id"], "fetched_at": FETCHED}],
        failures=[],
    )
    one, other = (run("clean", {"workers": 1}, raw_documents=raw) for raw in (old, new))
    for table in ("documents", "rejects"):
        assert one.read(table).to_pylist() == other.read(table).to_pylist()
