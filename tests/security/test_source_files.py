"""Untrusted files and folders as sources: links that lead elsewhere, and unpacking bombs."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts import InputError
from stages.user_files import LONGEST, read_rows
from tests.security.crawled import crawled

MAX_MEGABYTES = 512
SECRET = "-----BEGIN OPENSSH PRIVATE KEY-----"


@pytest.fixture
def cloned(tmp_path):
    """A folder that somebody else filled, beside a key that is not theirs."""
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    (tmp_path / "home" / ".ssh" / "id_rsa").write_text(SECRET)
    (tmp_path / "home" / "notes").mkdir()
    (tmp_path / "home" / "notes" / "private.txt").write_text(SECRET)
    folder = tmp_path / "cloned"
    folder.mkdir()
    (folder / "own.txt").write_text("a text of theirs")
    return folder


def read(run, *paths):
    return run(
        "crawl",
        {"sources": [{"kind": "files", "name": "mine", "paths": [str(path) for path in paths]}]},
    )


def bodies(artifact):
    return sorted(row["body"] for row in artifact.read("documents").to_pylist())


def plant(folder):
    (folder / "note.txt").symlink_to("../home/.ssh/id_rsa")
    (folder / "absolute.txt").symlink_to((folder.parent / "home" / ".ssh" / "id_rsa").absolute())
    (folder / "chained.txt").symlink_to("note.txt")
    (folder / "sub").symlink_to("../home/notes")
    (folder / "up").symlink_to("..")
    (folder / "circle.txt").symlink_to("circle.txt")


@pytest.mark.parametrize("pattern", ["", "*", "**/*.txt", "**", "*/*.txt", "[n]*.txt"])
def test_links_that_leave_the_folder_are_not_followed_and_are_counted(run, cloned, pattern):
    plant(cloned)
    if pattern in ("*/*.txt", "[n]*.txt"):
        with pytest.raises(
            InputError, match=r"links that lead out of it and nothing else|there is no such file"
        ):
            read(run, cloned / pattern)
        return
    artifact = read(run, cloned / pattern)
    assert bodies(artifact) == [b"a text of theirs"]
    (note,) = artifact.manifest.facts["notes"]
    assert "lead out of the folder that was given and were not followed" in note
    assert str(cloned / "note.txt") in note or "more" in note


def test_a_link_within_the_folder_is_followed_and_one_that_is_named_itself_too(run, cloned):
    (cloned / "again.md").symlink_to("own.txt")
    assert len(bodies(read(run, cloned))) == 1  # one file, by two names
    plant(cloned)
    assert bodies(read(run, cloned / "note.txt")) == [SECRET.encode()]


@pytest.mark.slow  # imports `datasets`
def test_a_folder_of_a_data_set_brings_no_files_of_elsewhere(tmp_path, cloned):
    (cloned / "own.txt").unlink()
    (cloned / "rows.jsonl").write_text('{"text": "a row of theirs"}\n')
    (cloned.parent / "home" / "private.jsonl").write_text(json.dumps({"text": SECRET}) + "\n")
    (cloned / "more.jsonl").symlink_to("../home/private.jsonl")
    done = crawled(tmp_path / "store", kind="dataset", dataset=str(cloned))
    assert (done.documents, done.error) == (1, "")
    assert any("not followed" in note or "left out" in note for note in done.notes)
    (cloned / "more.jsonl").unlink()
    private = cloned.parent / "home" / "private.jsonl"
    (cloned / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files: {private}\n---\n"
    )
    done = crawled(tmp_path / "other", kind="dataset", dataset=str(cloned))
    assert done.documents == 0
    assert done.error


def gzipped(path, *pieces):
    """Write gzip members one after the other, as `cat a.gz b.gz` does. pieces: (bytes, times)."""
    with path.open("wb") as out:
        for piece, times in pieces:
            member = gzip.compress(piece)
            for _ in range(times):
                out.write(member)


MEGABYTE = b"a" * (1 << 20)


def rows_of_jsonl(path):
    gzipped(path, ((json.dumps({"text": "a" * 100_000}) + "\n").encode() * 10, 2000))


def one_line(path):
    """Write 2 GB without a line end."""
    gzipped(path, (MEGABYTE, 2000))


def lists_in_lists(path):
    """Write 60 MB of empty lists in one line: few bytes, but large as objects."""
    path.write_bytes(b'{"text": "a", "b": [' + b"[]," * (20 << 20) + b"[]]}\n")


def archive(path):
    """Write one record of 2 GB."""
    size = 2000 << 20
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    record = (
        b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:0>\r\n"
        b"WARC-Target-URI: http://example.org/\r\n"
        b"WARC-Date: 2026-01-01T00:00:00Z\r\nContent-Type: application/http; msgtype=response\r\n"
        b"Content-Length: " + str(len(head) + size).encode() + b"\r\n\r\n" + head
    )
    gzipped(path, (record, 1), (MEGABYTE, 2000))


def header_without_end(path):
    """Write a header of 250 MB in one line. warcio's time is quadratic: half an hour."""
    gzipped(path, (b"WARC/1.0\r\nX: ", 1), (MEGABYTE, 250))


def packed_body(path):
    """Write a record whose body is compressed, too."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = b"".join(packer.compress(b"a" * (1 << 20)) for _ in range(2000)) + packer.flush()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n"
    path.write_bytes(
        b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:0>\r\n"
        b"WARC-Target-URI: http://example.org/\r\n"
        b"WARC-Date: 2026-01-01T00:00:00Z\r\nContent-Type: application/http; msgtype=response\r\n"
        b"Content-Length: "
        + str(len(head) + len(body)).encode()
        + b"\r\n\r\n"
        + head
        + body
        + b"\r\n\r\n"
    )


def dictionary(path):
    """Write 2,000 rows with the same 100 MB, which the file contains once, compressed."""
    column = pa.DictionaryArray.from_arrays(
        pa.array([0] * 2000, pa.int32()), pa.array(["a" * (100 << 20)])
    )
    pq.write_table(
        pa.table({"text": column.cast(pa.dictionary(pa.int32(), pa.large_string()))}),
        path,
        compression="zstd",
    )


def one_row(path):
    """Write a value of 400 MB, which compresses to almost nothing."""
    pq.write_table(
        pa.table({"text": pa.array(["a" * (400 << 20)], pa.large_string())}),
        path,
        compression="zstd",
    )


def wide_csv(path):
    """Write a row of 2 GB of empty fields."""
    gzipped(path, (b"text,more\n", 1), (b"," * (1 << 20), 2000))


BOMBS = [
    ("rows.jsonl.gz", rows_of_jsonl),
    ("line.jsonl.gz", one_line),
    ("lists.jsonl", lists_in_lists),
    ("text.txt.gz", one_line),
    ("line.csv.gz", one_line),
    ("fields.csv.gz", wide_csv),
    ("record.warc.gz", archive),
    ("body.warc", packed_body),
    ("header.warc.gz", header_without_end),
    ("dictionary.parquet", dictionary),
    ("row.parquet", one_row),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "make"), BOMBS, ids=[name for name, _ in BOMBS])
def test_no_file_takes_more_than_half_a_gigabyte_whatever_it_unpacks_to(tmp_path, name, make):
    make(tmp_path / name)
    done = crawled(tmp_path / "store", kind="files", name="mine", paths=[str(tmp_path / name)])
    assert done.peak <= MAX_MEGABYTES, done
    refused = name in done.error or "unreadable_row" in done.error
    assert refused or done.documents, done  # a document that was cut at the limit is fine, too


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dictionary.parquet", "lists.jsonl"])
def test_a_data_set_keeps_within_it_too(tmp_path, name):
    (tmp_path / "set").mkdir()
    dict(BOMBS)[name](tmp_path / "set" / name)
    done = crawled(tmp_path / "store", kind="dataset", dataset=str(tmp_path / "set"))
    assert done.peak <= MAX_MEGABYTES, done
    assert done.error or done.documents


ENDLESS = {
    "a pattern": ["sep: (a+)+b", "engine: python"],
    "a separator that is a pattern": ["delimiter: (a+)+b"],
    "all rows at once": ["chunksize: 1000000000"],
}


@pytest.mark.slow  # imports `datasets`
@pytest.mark.parametrize("way", ENDLESS)
def test_a_data_set_that_could_be_read_for_ever_is_refused(tmp_path, way):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.csv").write_text("text\n" + "a" * 46 + "c\n")
    head = ["---", "configs:", "- config_name: default", '  data_files: "a.csv"']
    settings = [f"  {line}" for line in ENDLESS[way]]
    (folder / "README.md").write_text("\n".join([*head, *settings, "---", ""]))
    done = crawled(tmp_path / "store", kind="dataset", dataset=str(folder))
    assert "which could keep the reader busy for ever" in done.error, done
    assert ENDLESS[way][0].split(":")[0] in done.error


@pytest.mark.slow
@pytest.mark.parametrize("name", ["record.warc.gz", "rows.jsonl.gz"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_reading_ends_at_a_signal(tmp_path, name, number):
    dict(BOMBS)[name](tmp_path / name)
    command = [
        sys.executable,
        "-m",
        "tests.security.crawled",
        str(tmp_path / "store"),
        json.dumps({"kind": "files", "name": "mine", "paths": [str(tmp_path / name)]}),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        reader = _child(process)
        os.kill(process.pid, number)
        stdout, _ = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    assert not os.path.exists(f"/proc/{reader}") or _is_zombie(reader)
    error = json.loads(stdout.splitlines()[-1])["error"]
    assert "stopped by a signal in" in error
    assert name in error


def _child(process):
    """Wait for the process that reads, and return its id."""
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.01)
    pytest.fail("no process was started to read the file")


def _is_zombie(process):
    return ") Z " in Path(f"/proc/{process}/stat").read_text()


def test_a_chat_file_has_rows_of_bounded_length(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_bytes(
        b'{"prompt": "a", "response": "'
        + b"b" * LONGEST
        + b'"}\n{"prompt": "c", "response": "d"}\n'
    )
    (long_number, start, wrong), (number, value, nothing) = read_rows(str(path))
    assert (long_number, len(start), wrong) == (1, 1000, f"longer than {LONGEST:,} bytes")
    assert (number, value, nothing) == (2, {"prompt": "c", "response": "d"}, None)


@pytest.mark.slow
def test_a_chat_file_that_unpacks_to_more_than_memory_is_refused(tmp_path):
    dictionary(tmp_path / "chats.parquet")
    with pytest.raises(
        InputError, match=r"chats\.parquet: cannot be read: it needs more than \d+ MB"
    ):
        list(read_rows(str(tmp_path / "chats.parquet")))
