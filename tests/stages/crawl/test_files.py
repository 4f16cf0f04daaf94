"""Local files as sources: texts, JSON lines, CSV, Parquet."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import stages
from data_contracts import InputError
from tests.stages.crawl.tables import documents

pytestmark = pytest.mark.usefixtures("reads_in_this_process")


def test_whole_files_are_kept_byte_for_byte_with_their_media_type(read, folder):
    bodies = {
        "a.txt": b"caf\xe9",
        "b.md": b"# b",
        "c.html": b"<p>c",
        "sub/d.HTM": b"<p>d",
        "e.txt.gz": b"zipped",
    }
    (folder / "sub").mkdir()
    for name, body in bodies.items():
        (folder / name).write_bytes(gzip.compress(body) if name.endswith(".gz") else body)
    artifact = read(charset="latin-1")
    found = documents(artifact, folder)
    assert {name: row["body"] for name, row in found.items()} == bodies
    kinds = {
        "a.txt": "text/plain",
        "b.md": "text/markdown",
        "c.html": "text/html",
        "sub/d.HTM": "text/html",
        "e.txt.gz": "text/plain",
    }
    assert {name: row["media_type"] for name, row in found.items()} == kinds
    row = found["a.txt"]
    assert (row["charset"], row["depth"], row["robots"], row["status"]) == (
        "latin-1",
        0,
        "not_applicable",
        None,
    )
    assert artifact.rows("fetches") == 0


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.ndjson"])
def test_json_lines_give_a_document_per_good_row_and_a_failure_per_bad_one(read, folder, name):
    lines = [
        '{"body": "one"}',
        "",
        '{"body": "two \\ud800 \\u0000"}',
        "{broken",
        '["a list"]',
        '{"\\ud800": "another"}',
        '{"body": 3}',
        '{"body": " "}',
    ]
    data = "\n".join(lines).encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    artifact = read(text_field="body", media_type="text/markdown")
    found = documents(artifact, folder)
    assert {url: row["body"] for url, row in found.items()} == {
        f"{name}#1": b"one",
        f"{name}#3": b"two \xed\xa0\x80 \0",
    }
    assert {(row["media_type"], row["charset"]) for row in found.values()} == {
        ("text/markdown", "utf-8")
    }
    failures = {
        row["url"].rpartition("#")[2]: row["reason"]
        for row in artifact.read("failures").to_pylist()
    }
    assert failures == {
        "4": "unreadable_row",
        "5": "unreadable_row",
        "6": "unreadable_row",
        "7": "unreadable_row",
        "8": "empty",
    }


def test_parquet_columns_of_text_or_bytes_are_read(read, folder):
    pq.write_table(pa.table({"text": ["one", None, "three"], "n": [1, 2, 3]}), folder / "a.parquet")
    pq.write_table(pa.table({"text": [b"\xff\xfe", b"2"]}), folder / "b.parquet")
    artifact = read("*.parquet")
    found = {url: row["body"] for url, row in documents(artifact, folder).items()}
    assert found == {
        "a.parquet#1": b"one",
        "a.parquet#3": b"three",
        "b.parquet#1": b"\xff\xfe",
        "b.parquet#2": b"2",
    }
    assert [row["reason"] for row in artifact.read("failures").to_pylist()] == ["unreadable_row"]


def test_the_same_files_give_the_same_bytes_and_a_changed_file_another_artifact(
    read, folder, store
):
    (folder / "a.txt").write_text("one")
    first = read()
    shutil.rmtree(first.path)
    again = read()
    assert (again.id, again.manifest.content) == (first.id, first.manifest.content)
    (folder / "a.txt").write_text("two")
    assert read().id != first.id


def test_long_documents_are_cut_and_told(read, folder):
    (folder / "a.txt").write_bytes(b"x" * 5000)
    (folder / "b.jsonl").write_text(json.dumps({"text": "y" * 5000}))
    artifact = read(max_page_bytes=2000)
    assert {
        (len(row["body"]), row["truncated"]) for row in artifact.read("documents").to_pylist()
    } == {(2000, True)}


def test_bodies_are_spread_over_shards(read, folder, monkeypatch):
    monkeypatch.setattr("stages.crawl.rows.SHARD_BYTES", 1000)
    (folder / "a.jsonl").write_text(
        "\n".join(json.dumps({"text": f"{n} " * 100}) for n in range(40))
    )
    artifact = read()
    assert len(artifact.table_paths("documents")) > 3
    assert artifact.rows("documents") == 40


def _with_a_damaged_page():
    out = io.BytesIO()
    pq.write_table(
        pa.table({"text": [f"row {n}" for n in range(1000)]}),
        out,
        compression="snappy",
        use_dictionary=False,
    )
    data = out.getvalue()
    return data[:200] + b"\xff" * 200 + data[400:]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.parquet", b"not parquet", "is damaged"),
        ("a.parquet", _with_a_damaged_page(), "is damaged"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}' * 100, mtime=0)[:-20], "is damaged"),
        ("a.txt.gz", b"not gzip", "is damaged"),
        ("a.warc.gz", gzip.compress(b"nothing of the kind\n\n", mtime=0), "is damaged"),
        ("a.zip", b"PK", r"files ending in \.zip are not known"),
        ("a", b"x", "files ending in nothing are not known"),
        ("a.txt", b" ", r"0 documents \(empty 1\)"),
        ("a.jsonl", b'{"content": "x"}', r"0 documents \(unreadable_row 1\)(?s:.)*text_field"),
    ],
    ids=[
        "parquet",
        "page of parquet",
        "jsonl.gz",
        "txt.gz",
        "warc.gz",
        "zip",
        "no ending",
        "blank",
        "unreadable rows",
    ],
)
def test_files_that_cannot_be_used_are_named(read, folder, name, data, message):
    (folder / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        read()


def test_hidden_files_of_a_folder_are_left_out_and_taken_if_they_are_named(read, folder):
    (folder / ".git").mkdir()
    for name in ("a.txt", ".b.txt", ".git/c.txt", ".DS_Store"):
        (folder / name).write_bytes(b"text")
    assert set(documents(read(), folder)) == {"a.txt"}
    assert set(documents(read("a.txt", ".b.txt", ".git"), folder)) == {
        "a.txt",
        ".b.txt",
        ".git/c.txt",
    }


@pytest.mark.parametrize("when", ["for its digest", "for its text"])
def test_a_file_that_may_not_be_read_is_named(read, folder, monkeypatch, when):
    (folder / "mine.txt").write_text("text")
    opened = os.open

    def guarded(path, *args, **kwargs):
        if Path(path).name == "mine.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(
        os, "open", guarded
    )  # chmod does not stop root, who runs the tests in many containers
    if when == "for its text":
        monkeypatch.setattr(
            "stages.crawl.config.file_digests", lambda paths, setting: dict.fromkeys(paths, "0")
        )
    with pytest.raises(InputError, match=r"mine\.txt: cannot be read: Permission denied"):
        read()


def test_an_empty_table_is_told_as_that(read, folder):
    (folder / "a.csv").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.csv: is empty: it has no line of column names"):
        read()


def test_a_missing_column_is_told_with_those_that_are_there(read, folder):
    pq.write_table(pa.table({"content": ["x"], "n": [1]}), folder / "a.parquet")
    with pytest.raises(InputError, match=r"a.parquet: has no column 'text'(?s:.)*content, n"):
        read()


def test_a_path_that_leads_nowhere_is_named_before_anything_is_done(folder):
    config = stages.stage("crawl").config_class.parse(
        {"sources": [{"kind": "files", "paths": [str(folder / "*.txt")]}]}, "crawl"
    )
    with pytest.raises(InputError, match=r"\*.txt: there is no such file"):
        config.identity()


def test_a_link_has_the_kind_and_the_address_of_its_own_name_and_a_file_is_read_once(read, folder):
    for name in ("blobs", "snapshot"):
        (folder / name).mkdir()
    (folder / "blobs" / "1f2e").write_text('{"text": "one"}')
    for name in ("rows.jsonl", "same.jsonl"):
        (folder / "snapshot" / name).symlink_to("../blobs/1f2e")
    named = [f"snapshot/{name}" for name in ("rows.jsonl", "same.jsonl")]
    assert set(documents(read(*named), folder)) == {"snapshot/rows.jsonl#1"}
