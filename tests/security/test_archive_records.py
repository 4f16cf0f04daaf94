"""Hostile archives: records that are cut, swallow others, or do not state what they are."""

from __future__ import annotations

import gzip

import pytest

from data_contracts import InputError
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


ARC_VERSION = b"1 0 x\nURL IP-address Archive-date Content-type Archive-length\n"
ARC_HEAD = b"filedesc://a.arc 0.0.0.0 20260101000000 text/plain %d\n" % len(ARC_VERSION)


def arc_record(name: bytes, more: int = 0) -> bytes:
    """A response of an ARC file whose length is `more` bytes too large."""
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + PAGE
    fields = b"1.2.3.4 20260101000000 text/html %d" % (len(http) + more)
    return b"\nhttps://example.org/%s %s\n%s" % (name, fields, http)


@pytest.mark.parametrize("swallows", [False, True])
def test_an_arc_file_has_a_failure_only_if_a_record_swallows_others(run, tmp_path, swallows):
    more = len(arc_record(b"b")) if swallows else 0
    pages = arc_record(b"a", more) + arc_record(b"b") + arc_record(b"c")
    (tmp_path / "a.arc").write_bytes(ARC_HEAD + ARC_VERSION + pages + b"\n")
    source = {"kind": "files", "paths": [str(tmp_path / "a.arc")]}
    artifact = run("crawl", {"sources": [source]})
    documents = artifact.read("documents").to_pylist()
    names = [row["url"][-1] for row in documents]
    details = [row["detail"] for row in artifact.read("failures").to_pylist()]
    assert not any(row["truncated"] for row in documents)
    assert (names, details) == ((["c"], [SWALLOWED]) if swallows else (["a", "b", "c"], []))


def test_a_page_that_goes_on_in_another_record_is_marked_as_cut(read):
    segment = record("a").replace(b"WARC-Date", b"WARC-Segment-Number: 1\r\nWARC-Date", 1)
    data = segment + other("continuation") + record("b")
    assert read(data) == ({"a": (PAGE, True), "b": (PAGE, False)}, [])


PACKED_TWICE = "the archive is packed twice with gzip, so that damage inside could not be noticed"
TEXT = b" ".join(b"word %d" % (number * 7919) for number in range(60_000))


@pytest.mark.parametrize("is_damaged", [False, True])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_archive_that_is_packed_twice_is_one_failure(read, is_damaged, pack):
    """warcio ended it at damage in an inner member, as at the end of the file."""
    members = bytearray(gzip.compress(record("a")) + gzip.compress(record("b", TEXT)))
    if is_damaged:
        members[-9000:-8000] = b"\xff" * 1000
    inner = bytes(members) + gzip.compress(record("c"))
    with pytest.raises(InputError, match="unreadable_row 1") as caught:
        read(gzip.compress(pack(inner)))
    assert PACKED_TWICE in str(caught.value)
    assert "unpack the archive once" in str(caught.value)


def test_a_page_that_begins_as_gzip_does_is_no_archive_that_is_packed_twice(read):
    data = record("a", gzip.compress(PAGE), b"Content-Encoding: gzip\r\n")
    assert read(gzip.compress(data)) == ({"a": (PAGE, False)}, [])


NO_LENGTH = "a record does not state its length (Content-Length): those behind it may be lost"
NO_HTTP = (
    "the record is said to hold an HTTP response and holds none, or its address is not of HTTP"
)


def without_length(data: bytes) -> bytes:
    """The record without the first Content-Length, which is that of the record itself."""
    return data.replace(b"Content-Length", b"X-Length", 1)


@pytest.mark.parametrize(
    "first",
    [
        record("a"),
        record("a", headers=b"Content-Length: -1\r\n"),
        record("a", headers=b"Content-Length: %d\r\n" % len(PAGE)),
        record("robots.txt"),
        *(other(kind) for kind in ("request", "metadata", "warcinfo", "revisit", "unheard-of")),
        other("request", block=b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"),
        other("metadata").replace(b"WARC-Type", b"X-Type"),
    ],
)
def test_a_record_without_a_length_is_counted_and_gives_no_page(read, first):
    """No record behind it can be found: it goes on to the end of the archive."""
    data = record("first") + without_length(first) + record("b")
    assert read(data) == ({"first": (PAGE, False)}, [("a.warc", NO_LENGTH)])


def test_a_last_record_without_a_length_is_counted(read):
    data = record("first") + without_length(record("b"))
    assert read(data) == ({"first": (PAGE, False)}, [("a.warc", NO_LENGTH)])


@pytest.mark.parametrize("stated", [b"HTTPS://example.org/a", b"Https://EXAMPLE.org/a"])
def test_a_page_whose_address_is_in_capitals_is_read(read, stated):
    data = record("a").replace(b"https://example.org/a", stated, 1) + record("b")
    assert read(data) == ({"a": (PAGE, False), "b": (PAGE, False)}, [])


@pytest.mark.parametrize("stated", [b"Response", b"RESPONSE", b"response \t"])
def test_a_page_whose_type_is_in_capitals_is_read(read, stated):
    data = record("a").replace(b"response", stated, 1) + record("b")
    assert read(data) == ({"a": (PAGE, False), "b": (PAGE, False)}, [])


@pytest.mark.parametrize("stated", [b"example.org/a", b"//example.org/a", b"htps://example.org/a"])
def test_a_response_of_http_whose_address_is_not_of_http_is_counted(read, stated):
    data = record("a").replace(b"https://example.org/a", stated, 1) + record("b")
    assert read(data) == ({"b": (PAGE, False)}, [("a", NO_HTTP)])


def test_a_response_of_http_without_a_block_is_counted(read):
    head, _, _ = record("a").partition(b"HTTP/1.1 200")
    length = head.rindex(b"Content-Length")
    data = head[:length] + b"Content-Length: 0\r\n\r\n\r\n\r\n" + record("b")
    assert read(data) == ({"b": (PAGE, False)}, [("a", NO_HTTP)])


def test_a_response_of_another_protocol_is_no_failure(read):
    dns = other("response", block=b"20260101000000\r\nexample.org. 60 IN A 1.2.3.4\r\n")
    dns = dns.replace(b"https://example.org/x", b"dns:example.org\r\nContent-Type: text/dns", 1)
    assert read(dns + record("b")) == ({"b": (PAGE, False)}, [])


def test_an_archive_that_is_cut_behind_the_head_of_a_record_has_a_failure(read):
    """warcio takes the missing block for the end of the archive."""
    head, _, _ = record("b").partition(b"HTTP/1.1 200")
    documents, failures = read(record("a") + head)
    assert documents == {"a": (PAGE, False)}
    assert [detail for _, detail in failures] == [
        NO_HTTP,
        "a record ends before its Content-Length: the archive was cut, or that length is wrong",
    ]
