"""Hostile archives: records that are cut, swallow others, or do not state what they are."""

from __future__ import annotations

import gzip

import pytest

from tests.security.archives import PAGE, other, record

SWALLOWED = "the Content-Length of the record is wrong: the record includes the one behind it"
TWO = record("b") + record("c")


def test_a_page_that_the_end_of_an_archive_cuts_is_marked_as_cut(read):
    documents, failures = read(record("a") + record("b")[:-20])
    assert documents == {"a": (PAGE, False), "b": (PAGE[:-16], True)}
    ((address, detail),) = failures
    assert address == "a.warc"
    assert "a record ends before its Content-Length: the archive was cut" in detail


@pytest.mark.parametrize("more", [len(record("b")), len(record("b")) + 9, 1 << 30])
def test_a_record_that_swallows_the_one_behind_it_is_a_failure(read, more):
    last = record("c") if more == len(record("b")) else b""
    documents, failures = read(record("first") + record("a", more=more) + record("b") + last)
    assert set(documents) == ({"first", "c"} if last else {"first"})
    assert failures[0] == ("a", SWALLOWED)


@pytest.mark.parametrize(
    "first",
    [
        *(other(kind, len(TWO)) for kind in ("metadata", "warcinfo", "resource", "conversion")),
        other("unheard-of", len(TWO)),
        other("metadata", len(TWO), b""),
        other("request", len(TWO), b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"),
        other("request", len(TWO), b"GET / HTTP/1.1\r\nHost: example.org\r\n"),
        other("request", len(TWO), b"GET / HTTP/1.1"),
        other("revisit", len(TWO), b"HTTP/1.1 200 OK\r\n\r\n"),
        record("robots.txt", more=len(TWO)),
    ],
)
def test_a_record_that_is_no_page_and_swallows_others_is_counted(read, first):
    documents, failures = read(first + TWO + record("d"))
    assert documents == {"d": (PAGE, False)}
    assert failures == [("a.warc", SWALLOWED)]


def test_a_response_that_is_counted_already_and_swallows_others_is_counted_for_both(read):
    broken = record("a", more=len(TWO)).replace(b"WARC-Date: 2", b"WARC-Date: x", 1)
    documents, failures = read(broken + TWO + record("d"))
    assert documents == {"d": (PAGE, False)}
    ((_, detail), second) = failures
    assert "WARC-Date" in detail
    assert second == ("a.warc", SWALLOWED)


def test_records_of_all_kinds_that_are_sound_have_no_failures(read):
    data = record("robots.txt") + record("a")
    for kind in ("metadata", "warcinfo", "resource", "conversion", "unheard-of"):
        data += other(kind) + other(kind, block=b"")
    data += other("request", block=b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")
    data += other("revisit", block=b"HTTP/1.1 200 OK\r\n\r\n") + other("revisit", block=b"")
    assert read(data + record("b")) == ({"a": (PAGE, False), "b": (PAGE, False)}, [])


def test_a_page_about_archives_is_a_page(read):
    body = b"<pre>\r\n\r\nWARC/1.0\r\nWARC-Type: response\r\n\r\n</pre>"
    length = f"Content-Length: {len(body)}\r\n".encode()
    documents, failures = read(record("a", body, length))
    assert (documents, failures) == ({"a": (body, False)}, [])


def test_a_content_length_that_is_too_small_marks_the_page_as_cut(read):
    documents, failures = read(record("a", PAGE + b" more", more=-5) + record("b"))
    assert documents == {"a": (PAGE, True), "b": (PAGE, False)}
    assert failures == []


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_sound_archives_have_no_failures(read, pack):
    data = b"".join(pack(record(name)) for name in "abc")
    documents, failures = read(data)
    assert documents == dict.fromkeys("abc", (PAGE, False))
    assert failures == []


def test_a_sound_arc_file_has_no_failures(run, tmp_path):
    version = b"1 0 x\nURL IP-address Archive-date Content-type Archive-length\n"
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + PAGE
    data = (
        b"filedesc://a.arc 0.0.0.0 20260101000000 text/plain %d\n" % len(version)
        + version
        + b"\nhttps://example.org/a 1.2.3.4 20260101000000 text/html %d\n" % len(http)
        + http
        + b"\n"
    )
    (tmp_path / "a.arc").write_bytes(data)
    source = {"kind": "files", "paths": [str(tmp_path / "a.arc")]}
    artifact = run("crawl", {"sources": [source]})
    assert (artifact.rows("documents"), artifact.rows("failures")) == (1, 0)
    assert not artifact.read("documents").to_pylist()[0]["truncated"]
