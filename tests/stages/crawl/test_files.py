from __future__ import annotations

import gzip
import io
import json
import os
import shutil
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import stages
from data_contracts import ArtifactError, ConfigError, InputError
from stages.report import Report
from stages.run import run_stage


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "in"
    path.mkdir()
    return path


@pytest.fixture
def read(run, folder):
    def go(*patterns, **settings):
        paths = [str(folder / pattern) for pattern in patterns or ("",)]
        return run(
            "crawl", {"sources": [{"kind": "files", "name": "mine", "paths": paths} | settings]}
        )

    return go


def documents(artifact, folder):
    rows = artifact.read("documents").to_pylist()
    return {row["url"].removeprefix(f"{folder.as_uri()}/"): row for row in rows}


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
        '{"body": "one"}', "", '{"body": "two \\ud800 \\u0000"}', "{broken", '["a list"]',
        '{"\\ud800": "another"}', '{"body": 3}', '{"body": " "}',
    ]  # fmt: skip
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


def test_an_archive_that_a_crawl_wrote_gives_the_same_documents_back(site, crawl, read, folder):
    site.page("/", "/a", "/a?x=1", head="<link rel=license href=/l>", headers={"ETag": "e"})
    site.page("/a", text="\u00e9" * 100)
    crawled = crawl()
    shutil.copy(crawled.path / "warc/site-00000.warc.gz", folder / "one.warc.gz")
    (folder / "two.warc").write_bytes(gzip.decompress((folder / "one.warc.gz").read_bytes()))
    columns = ["url", "body", "media_type", "charset", "license", "status"]
    wanted = sorted(crawled.read("documents", columns).to_pylist(), key=lambda row: row["url"])
    times = ["fetched_at", "etag", "last_modified"]
    fetches = crawled.read("fetches", times).to_pylist()
    for name in ("one.warc.gz", "two.warc"):
        again = read(name)
        assert (
            sorted(again.read("documents", columns).to_pylist(), key=lambda row: row["url"])
            == wanted
        )
        assert sorted(map(str, again.read("fetches", times).to_pylist())) == sorted(
            map(str, fetches)
        )
    both = read()
    assert both.rows("documents") == len(wanted)
    assert both.manifest.facts["rejected"] == {"duplicate_address": len(wanted)}


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
    ("name", "data", "told"),
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
def test_files_that_cannot_be_used_are_named(read, folder, name, data, told):
    (folder / name).write_bytes(data)
    with pytest.raises(InputError, match=told):
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


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b"HTTP/1.1 200 OK", b"HTTP/1.1 2oo OK"),
        (b"HTTP/1.1 200 OK", "HTTP/1.1 \u00b2 OK".encode()),
        (b"WARC-Date: 2", b"WARC-Date: x"),
        (b"WARC-Date: ", b"WARC-Date: 0001-01-01T00:00:00+23:00\r\nX-Date: "),
    ],
    ids=["status", "superscript status", "date", "date before the first year"],
)
def test_a_record_of_an_archive_with_a_broken_head_is_one_failure(
    site, crawl, read, folder, good, bad
):
    site.page("/", "/a")
    site.page("/a")
    data = gzip.decompress((crawl().path / "warc/site-00000.warc.gz").read_bytes())
    start = data.rindex(b"WARC/1.1", 0, data.rindex(b"WARC-Type: response"))  # the last page
    (folder / "a.warc").write_bytes(data[:start] + data[start:].replace(good, bad, 1))
    artifact = read()
    assert artifact.rows("documents") == 1
    assert artifact.manifest.facts["rejected"]["unreadable_row"] == 1


HEAD = b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:0>\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"


def _record(
    address=b"https://example.org/", body=b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
):
    length = str(len(body)).encode()
    kind = b"Content-Type: application/http; msgtype=response\r\n"
    return (
        HEAD
        + b"WARC-Target-URI: "
        + address
        + b"\r\n"
        + kind
        + b"Content-Length: "
        + length
        + b"\r\n\r\n"
        + body
        + b"\r\n\r\n"
    )


ADVICE = {
    "a record that cannot be read": ("a.warc", _record(b"http://["), "replace the archive"),
    "a page of the built-in server": (
        "a.warc",
        _record(b"http://pydoc.localhost/os.html"),
        "use a source of kind pydoc",
    ),
    "an answer that is none": (
        "a.warc",
        _record(body=b"HTTP/1.1 404 Not Found\r\n\r\n"),
        "answered with status 200",
    ),
    "a picture": (
        "a.warc",
        _record(body=b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\nx"),
        "hold HTML or text",
    ),
    "a page without text": ("a.warc", _record(), "archives whose pages hold text"),
    "no pages": (
        "a.warc",
        _record().replace(b": response", b": metadata"),
        "records of type response",
    ),
    "an empty archive": ("a.warc.gz", gzip.compress(b""), "records of type response"),
    "rows without the field": ("a.jsonl", b'{"content": "x"}', "set text_field to the field"),
    "rows without text": ("a.jsonl", b'{"text": " "}', "check text_field"),
    "no rows": ("a.jsonl", b"\n", "name files that have rows"),
    "a table of no rows": ("a.csv", b"text\n", "name files that have rows"),
    "a packed file of nothing": ("a.jsonl.gz", b"", "name files that have rows"),
    "a text of blanks": ("a.txt", b" \n", "name files that hold text"),
}


@pytest.mark.parametrize("case", ADVICE)
def test_files_that_give_nothing_are_told_with_advice_that_fits_their_kind(read, folder, case):
    name, data, wanted = ADVICE[case]
    (folder / name).write_bytes(data)
    with pytest.raises(InputError, match=r"crawl source mine: 0 documents") as error:
        read()
    assert wanted in error.value.fix
    assert "browser" not in str(error.value)
    assert ("text_field" in error.value.fix) == ("text_field" in wanted)


def test_of_several_kinds_that_advice_is_told_that_fits_the_reason(read, folder):
    (folder / "a.jsonl").write_bytes(b"")
    (folder / "a.warc").write_bytes(_record(b"http://pydoc.localhost/os.html"))
    with pytest.raises(InputError, match="0 documents") as error:
        read()
    assert (
        error.value.fix
        == "for Python's documentation use a source of kind pydoc; then run it again"
    )


DAMAGED = {
    "a head that does not end": ("a.warc", b"WARC/1.0\r\nX: " + b"a" * 100_000),
    "a head alone": ("a.warc", b"WARC/1.0\r\n"),
    "lines without text": ("a.warc", b"\n\n"),
    "cut while packed": ("a.warc.gz", gzip.compress(_record() * 3, mtime=0)[:-30]),
    "cut after sound pages": (
        "a.warc.gz",
        gzip.compress(_record(), mtime=0)
        + gzip.compress(_record(b"https://b.org/"), mtime=0)[:-30],
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_an_archive_that_is_damaged_is_said_to_be_and_not_taken_for_an_empty_one(
    read, folder, case
):
    name, data = DAMAGED[case]
    (folder / name).write_bytes(data)
    with pytest.raises(InputError, match=rf"{name}: is damaged: it "):
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


def identity(**source):
    return stages.stage("crawl").config_class.parse({"sources": [source]}, "crawl").identity()


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "files", "paths": ["~nobody-i-know/x"]},
        {"kind": "dataset", "dataset": "~nobody-i-know/x"},
    ],
)
def test_the_home_of_an_unknown_user_is_no_such_file(source):
    with pytest.raises(InputError, match=r"~nobody-i-know/x: there is no such file"):
        identity(**source)


@pytest.mark.parametrize(
    "source",
    [
        {"dataset": "json", "data_files": ["in/*.jsonl"]},
        {"dataset": "json", "data_files": ["~/in/rows.jsonl"]},
        {"dataset": "./in"},
        {"dataset": "in"},
        {"dataset": "~/in", "data_files": ["*.jsonl"]},
        {
            "dataset": "somebody/something",
            "data_files": ["~/in/*.jsonl", "data/of-the-hub.jsonl", "https://example.org/x.jsonl"],
        },
    ],
)
def test_changed_files_of_a_data_set_make_another_artifact(folder, monkeypatch, source):
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    (folder / "rows.jsonl").write_text("one")
    one = identity(kind="dataset", **source)
    (folder / "rows.jsonl").write_text("other")
    other = identity(kind="dataset", **source)
    assert [len(told["sources"][0]["sha256"]) for told in (one, other)] == [1, 1]
    assert one != other


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            {"dataset": "json", "data_files": ["nowhere/*.jsonl"]},
            r"nowhere/\*\.jsonl: there is no such file",
        ),
        (
            {"dataset": "somebody/something", "data_files": ["/nowhere/*.jsonl"]},
            r"/nowhere/\*\.jsonl: there is no such file",
        ),
        ({"dataset": "./nowhere"}, r"/nowhere: there is no such file"),
    ],
)
def test_a_data_set_that_is_to_be_local_and_is_not_there_is_named(source, told):
    with pytest.raises(InputError, match=told):
        identity(kind="dataset", **source)


@pytest.mark.slow  # importing datasets takes seconds
def test_an_error_of_writing_is_not_told_as_one_of_the_data_set(run, folder, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    (folder / "rows.jsonl").write_text('{"text": "row"}')
    monkeypatch.setattr("stages.crawl.rows.Rows.document", full)
    with pytest.raises(ArtifactError, match="the disk is full"):
        run("crawl", {"sources": [{"kind": "dataset", "dataset": str(folder)}]})


def test_where_and_how_to_run_is_no_part_of_the_identity():
    crawl = stages.stage("crawl").config_class
    web = {"kind": "web", "name": "w", "seeds": ["https://example.org/"]}
    one, other = (
        crawl.parse({"sources": [web | more]}, "crawl").identity()
        for more in ({}, {"connections": 2, "delay_seconds": 9})
    )
    assert one == other
    assert one != crawl.parse({"sources": [web | {"max_depth": 3}]}, "crawl").identity()


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        ([{"kind": "web", "name": "w", "seedz": ["https://example.org/"]}], "did you mean 'seeds'"),
        ([{"kind": "wbe", "name": "w"}], "'web', 'pydoc', 'files', 'dataset'"),
        ([{"kind": "pydoc"}, {"kind": "pydoc"}], "two sources are called pydoc"),
        ([{"kind": "pydoc", "name": "../x"}], "pattern"),
        ([], "at least 1 item"),
    ],
)
def test_mistakes_in_the_settings_are_told(sources, told):
    with pytest.raises(ConfigError, match=told):
        stages.stage("crawl").config_class.parse({"sources": sources}, "crawl")


@pytest.mark.slow  # importing datasets takes seconds
def test_progress_through_a_data_set_is_told_of_the_limit(store, folder):
    class Ear(Report):
        told: ClassVar[list[tuple[float, float | None, str]]] = []

        def progress(self, done, total, unit):
            self.told.append((done, total, unit))

    (folder / "rows.jsonl").write_text(
        "\n".join(json.dumps({"text": f"row {n}"}) for n in range(9))
    )
    source = {
        "kind": "dataset",
        "dataset": "json",
        "data_files": [str(folder / "rows.jsonl")],
        "max_documents": 3,
    }
    row = stages.stage("crawl")
    run_stage(store, row, row.config_class.parse({"sources": [source]}, "crawl"), {}, Ear())
    assert Ear.told == [(1, 3, "rows"), (2, 3, "rows"), (3, 3, "rows")]


@pytest.mark.slow  # importing datasets takes seconds
def test_rows_of_a_data_set_are_streamed_up_to_the_limit(run, folder):
    (folder / "rows.jsonl").write_text(
        "\n".join(json.dumps({"content": f"row {n}"}) for n in range(50))
    )
    source = {
        "kind": "dataset",
        "dataset": "json",
        "data_files": [str(folder / "rows.jsonl")],
        "text_field": "content",
        "max_documents": 7,
    }
    artifact = run("crawl", {"sources": [source]})
    assert [row["body"] for row in artifact.read("documents").to_pylist()] == [
        f"row {n}".encode() for n in range(7)
    ]
    assert "limit of 7 rows" in artifact.manifest.facts["notes"][0]
    with pytest.raises(InputError, match=r"has no column 'text'(?s:.)*content"):
        run("crawl", {"sources": [source | {"text_field": "text"}]})
    (folder / "rows.jsonl").write_text("{broken")
    with pytest.raises(InputError, match="cannot be read at row 1"):
        run("crawl", {"sources": [source]})
    (folder / "rows.jsonl").write_text('{"content": "row of a folder"}')
    artifact = run("crawl", {"sources": [source | {"dataset": str(folder), "data_files": []}]})
    assert artifact.read("documents", ["url"]).column(0).to_pylist() == [
        f"{folder.as_uri()}/default/train#1"
    ]
