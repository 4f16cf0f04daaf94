"""Hostile archives: bodies in any compression or in damaged chunks, and heads without end."""

from __future__ import annotations

import gzip
import zlib

import pytest

from tests.flows.conftest import Groundup
from tests.security.archives import PAGE, record
from tests.security.crawled import crawled


def brotli(data: bytes) -> bytes:
    packed: bytes = pytest.importorskip("brotli").compress(data)
    return packed


BR = b"Content-Encoding: br\r\n"
GZIP = b"Content-Encoding: gzip\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CUT = "the body, packed or in chunks, is cut, and nothing marks the record as cut"
WORDS = b"<p>" + b" ".join(b"word %d" % (number * 7919) for number in range(40_000))


def deflated(data: bytes, window: int) -> bytes:
    packer = zlib.compressobj(wbits=window)
    return packer.compress(data) + packer.flush()


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)


@pytest.mark.parametrize("frame", [bytes, chunked])
@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(WORDS)),
        ("GZIP", gzip.compress(WORDS)),
        ("x-gzip", gzip.compress(WORDS)),
        ("gzip", gzip.compress(WORDS[:1000]) + gzip.compress(WORDS[1000:])),
        ("gzip", gzip.compress(WORDS) + b"\0" * 100),
        ("gzip", gzip.compress(WORDS) + b"\0" * 100_000),
        ("gzip", gzip.compress(WORDS) + b"\r\n"),
        ("gzip", gzip.compress(WORDS) + b"\n"),
        ("deflate", deflated(WORDS, zlib.MAX_WBITS)),
        ("deflate", deflated(WORDS, -zlib.MAX_WBITS)),
        ("gzip", WORDS),
        ("deflate", WORDS),
        ("utf-8", WORDS),
        ("identity, gzip", gzip.compress(WORDS)),
        ("none", WORDS),
        ("text/html; charset=iso-8859-1", WORDS),
        ("gzip", gzip.compress(b"") * 999 + gzip.compress(WORDS)),
    ],
)
def test_a_body_is_unpacked_to_its_end_or_taken_as_it_is(read, encoding, packed, frame):
    headers = b"Content-Encoding: %s\r\n" % encoding.encode()
    headers += CHUNKED if frame is chunked else b""
    documents, failures = read(record("a", frame(packed), headers) + record("b"))
    assert documents == {"a": (WORDS, False), "b": (PAGE, False)}
    assert failures == []


@pytest.mark.parametrize("at", [12, 1000, 0.5, 0.99])
@pytest.mark.parametrize("frame", [bytes, chunked])
def test_a_body_whose_packing_is_damaged_is_one_failure_wherever_the_damage_is(read, at, frame):
    """warcio would end it there, or take the packed bytes for a page, and say nothing."""
    packed = bytearray(gzip.compress(WORDS))
    place = at if isinstance(at, int) else int(at * len(packed))
    packed[place : place + 8] = b"\xff" * 8
    headers = GZIP + (CHUNKED if frame is chunked else b"")
    documents, failures = read(record("a", frame(bytes(packed)), headers) + record("b"))
    assert documents == {"b": (PAGE, False)}
    ((address, detail),) = failures
    assert address == "a"
    assert detail.startswith("the body, packed with gzip: Error -3 while decompressing data")


NO_MEMBER = "the body, packed with gzip, has bytes behind a member that do not begin another one"
TWO_MEMBERS = gzip.compress(WORDS[:1000]), gzip.compress(WORDS[1000:])


@pytest.mark.parametrize("frame", [bytes, chunked])
@pytest.mark.parametrize(
    "second",
    [
        b"\xff" + TWO_MEMBERS[1][1:],
        TWO_MEMBERS[1][:1] + b"\xff" + TWO_MEMBERS[1][2:],
        b"\0" + TWO_MEMBERS[1][1:],
        b"\n" + TWO_MEMBERS[1][1:],
        b"\0" * 100_000 + TWO_MEMBERS[1],
        TWO_MEMBERS[1][1:],
        b"\xff",
    ],
)
def test_a_later_member_of_gzip_whose_beginning_is_damaged_is_one_failure(read, second, frame):
    """The body used to end there, and to pass as whole."""
    headers = GZIP + (CHUNKED if frame is chunked else b"")
    data = record("a", frame(TWO_MEMBERS[0] + second), headers) + record("b")
    assert read(data) == ({"b": (PAGE, False)}, [("a", NO_MEMBER)])


@pytest.mark.parametrize("length", [1, 2, 5, 10, 20])
def test_a_later_member_of_gzip_that_is_cut_is_a_failure_unless_it_is_marked_as_cut(read, length):
    data = record("a", TWO_MEMBERS[0] + TWO_MEMBERS[1][:length], GZIP)
    assert read(data + record("b")) == ({"b": (PAGE, False)}, [("a", CUT)])
    marked = data.replace(b"WARC/1.0", b"WARC/1.0\r\nWARC-Truncated: length", 1)
    documents, failures = read(marked)
    assert failures == []
    text, is_marked = documents["a"]
    assert is_marked
    assert text.startswith(WORDS[:1000])


def test_a_packed_body_that_ends_too_early_is_a_failure_unless_it_is_marked_as_cut(read):
    cut = gzip.compress(WORDS)[:-5000]
    documents, failures = read(record("a", cut, GZIP) + record("b"))
    assert (documents, failures) == ({"b": (PAGE, False)}, [("a", CUT)])
    marked = record("a", cut, GZIP).replace(b"WARC/1.0", b"WARC/1.0\r\nWARC-Truncated: length", 1)
    documents, failures = read(marked + record("b"))
    assert failures == []
    body, is_marked = documents["a"]
    assert is_marked
    assert len(body) > 1000
    assert WORDS.startswith(body)


def test_what_cannot_be_unpacked_is_counted_and_said_on_the_console(tmp_path):
    (tmp_path / "a.warc").write_bytes(record("a", gzip.compress(WORDS)[:-9], GZIP) + record("b"))
    groundup = Groundup(tmp_path / "home", 0, tmp_path)
    source = "[{kind: files, name: mine, paths: [a.warc]}]"
    done = groundup.run("stage", "crawl", "--name", "x", "--set", f"sources={source}")
    told = " ".join((done.stdout + done.stderr).split())
    assert "1 failures" in told


def test_a_body_packed_with_brotli_is_read(read):
    data = record("a", brotli(PAGE * 9000), BR) + record("plain", PAGE, BR) + record("b")
    documents, failures = read(data)
    assert documents == {
        "a": (PAGE * 9000, False),
        "plain": (PAGE, False),
        "b": (PAGE, False),
    }
    assert failures == []


def test_a_body_packed_with_brotli_in_chunks_is_read(read):
    documents, _ = read(record("a", chunked(brotli(PAGE)), BR + CHUNKED))
    assert documents == {"a": (PAGE, False)}


def test_a_body_that_cannot_be_unpacked_is_one_failure(read):
    cut = record("cut", brotli(bytes(range(256)) * 999)[:-9], BR)
    zstd = record("zstd", b"(\xb5/\xfd", b"Content-Encoding: zstd\r\n")
    documents, failures = read(cut + zstd + record("b"))
    assert documents == {"b": (PAGE, False)}
    assert failures == [
        ("cut", CUT),
        ("zstd", "Content-Encoding zstd is not supported"),
    ]


def test_bytes_behind_a_body_packed_with_brotli_are_passed_over(read):
    """A decompressor of brotli fails at them and keeps the body to itself."""
    data = record("a", brotli(WORDS) + b"\r\n", BR) + record("b", brotli(PAGE) + b"\0" * 99, BR)
    data += record("c", brotli(PAGE * 9999) + b"\r\n", BR)  # more than is unpacked at a time
    wanted = {"a": (WORDS, False), "b": (PAGE, False), "c": (PAGE * 9999, False)}
    assert read(data) == (wanted, [])


@pytest.mark.parametrize(
    "encoding", ["lzma", "xz", "bzip2", "dcb", "zlib", "gzip;q=1.0", '"gzip"', "gzip, gzip", "hex"]
)
def test_a_body_that_is_packed_in_an_unknown_way_is_one_failure(read, encoding):
    headers = b"Content-Encoding: %s\r\n" % encoding.encode()
    data = record("a", gzip.compress(WORDS), headers) + record("b")
    why = f"Content-Encoding {encoding} is not supported"
    assert read(data) == ({"b": (PAGE, False)}, [("a", why)])


@pytest.mark.parametrize(
    ("headers", "packed"),
    [
        (b"Content-Encoding: identity\r\n" + GZIP, gzip.compress(WORDS)),
        (b"Transfer-Encoding: gzip\r\n", gzip.compress(WORDS)),
        (b"Transfer-Encoding: gzip, chunked\r\n", chunked(gzip.compress(WORDS))),
        (b"Transfer-Encoding: gzip\r\n" + CHUNKED, chunked(gzip.compress(WORDS))),
        (b"Transfer-Encoding: Chunked\r\n", chunked(WORDS)),
        (CHUNKED + CHUNKED, chunked(WORDS)),
        (CHUNKED + GZIP, gzip.compress(WORDS)),
    ],
)
def test_a_packing_is_found_in_whatever_header_it_is_stated(read, headers, packed):
    data = record("a", packed, headers) + record("b")
    assert read(data) == ({"a": (WORDS, False), "b": (PAGE, False)}, [])


@pytest.mark.parametrize(
    "headers",
    [
        GZIP + GZIP,
        b"Transfer-Encoding: lzw\r\n",
        b"Transfer-Encoding: chunked, gzip\r\n",
        b"Transfer-Encoding: " + b"chunked," * 30_000 + b"\r\n",
        GZIP + b"Transfer-Encoding: deflate\r\n",
    ],
)
def test_packings_that_are_not_undone_are_one_failure(read, headers):
    documents, failures = read(record("a", gzip.compress(WORDS), headers) + record("b"))
    assert documents == {"b": (PAGE, False)}
    assert [address for address, _ in failures] == ["a"]


@pytest.mark.parametrize("frame", [bytes, chunked])
@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(WORDS)),
        ("deflate", deflated(WORDS, zlib.MAX_WBITS)),
        ("br", None),
    ],
)
def test_packed_bytes_whose_begin_is_damaged_are_not_taken_for_a_page(
    read, encoding, packed, frame
):
    packed = packed or brotli(WORDS)
    headers = b"Content-Encoding: %s\r\n" % encoding.encode()
    headers += CHUNKED if frame is chunked else b""
    damaged = b"\xff" * 8 + packed[8:]
    documents, failures = read(record("a", frame(damaged), headers) + record("b"))
    assert documents == {"b": (PAGE, False)}
    assert [address for address, _ in failures] == ["a"]


@pytest.mark.parametrize(
    "text", [WORDS, "<p>\u00e9\u4e00\u0416 ".encode() * 999, b"<p>\xe9\xc6" * 99]
)
@pytest.mark.parametrize("headers", [GZIP, BR, b"Content-Encoding: deflate\r\n"])
def test_a_text_under_the_headers_of_a_packed_one_is_taken_as_it_is(read, text, headers):
    if headers == BR:
        pytest.importorskip("brotli")
    assert read(record("a", text, headers)) == ({"a": (text, False)}, [])


def test_a_body_of_too_many_members_of_gzip_is_one_failure(read):
    """Each costs time, even one that unpacks to nothing."""
    data = record("a", gzip.compress(b"") * 100_000, GZIP) + record("b")
    why = "the body, packed with gzip, has more than 1,000 members"
    assert read(data) == ({"b": (PAGE, False)}, [("a", why)])


def test_a_body_in_chunks_of_one_byte_is_read(read):
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in WORDS)
    data = record("a", body + b"0;x=y\r\nTrailer: x\r\n\r\n", CHUNKED) + record("b")
    assert read(data) == ({"a": (WORDS, False), "b": (PAGE, False)}, [])


@pytest.mark.slow
def test_millions_of_chunks_of_one_byte_end_no_archive(tmp_path):
    data = record("a", b"1\r\na\r\n" * 3_000_000 + b"0\r\n\r\n", CHUNKED) + record("b")
    (tmp_path / "a.warc.gz").write_bytes(gzip.compress(data))
    paths = [str(tmp_path / "a.warc.gz")]
    done = crawled(tmp_path / "store", kind="files", name="mine", paths=paths)
    assert (done.documents, done.error) == (2, "")
    assert done.peak <= 512


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"5\r\nabcdefgh\r\n0\r\n\r\n", "the body is in chunks, and one is longer than it says"),
        (b"1\r\na\r\nx\r\n", "the body is in chunks, and one has no length that can be read"),
        (b"F" * 16 + b"\r\na", "the body is in chunks, and one has no length that can be read"),
        (b"1;" + b"x" * 9999 + b"\r\na", "the body is in chunks, and one has no length"),
        (b"9\r\nabc", CUT),
        (b"1\r\na\r\n1", CUT),
        (b"5\r\nhello\r\n5\r\nworld\r\n", CUT),  # no last chunk
        (b"5\r\nhello\r\n5\r\nworld\r", CUT),
        (b"5\r\nhello\r\n5\r\nworld", CUT),
        (b"5\r\nhello\r\n5\r\nworld\r\n0", CUT),
    ],
)
def test_a_body_whose_chunks_are_damaged_is_one_failure(read, body, detail):
    documents, failures = read(record("a", body, CHUNKED) + record("b"))
    assert documents == {"b": (PAGE, False)}
    ((address, said),) = failures
    assert address == "a"
    assert said.startswith(detail)


def in_one_chunk(data: bytes) -> bytes:
    """All of a body, without the chunk that ends it."""
    return b"%x\r\n%s\r\n" % (len(data), data)


CUT_BETWEEN_CHUNKS = {
    "gzip": (GZIP + CHUNKED, lambda: in_one_chunk(gzip.compress(WORDS))),
    "gzip, a member of two": (GZIP + CHUNKED, lambda: in_one_chunk(gzip.compress(WORDS[:999]))),
    "deflate": (
        b"Content-Encoding: deflate\r\n" + CHUNKED,
        lambda: in_one_chunk(deflated(WORDS, zlib.MAX_WBITS)),
    ),
    "br": (BR + CHUNKED, lambda: in_one_chunk(brotli(WORDS))),
    "outer of two frames": (CHUNKED * 2, lambda: in_one_chunk(chunked(WORDS))),
    "inner of two frames": (CHUNKED * 2, lambda: chunked(in_one_chunk(WORDS))),
    "frame of a header that is repeated": (CHUNKED * 2, lambda: in_one_chunk(WORDS)),
    "text": (CHUNKED, lambda: in_one_chunk(WORDS)),
}


@pytest.mark.parametrize("case", CUT_BETWEEN_CHUNKS)
def test_a_body_without_its_last_chunk_is_a_failure_unless_it_is_marked_as_cut(read, case):
    headers, body = CUT_BETWEEN_CHUNKS[case]
    data = record("a", body(), headers)
    assert read(data + record("b")) == ({"b": (PAGE, False)}, [("a", CUT)])
    marked = data.replace(b"WARC/1.0", b"WARC/1.0\r\nWARC-Truncated: length", 1)
    documents, failures = read(marked + record("b"))
    assert failures == []
    text, is_marked = documents["a"]
    assert is_marked
    assert text
    assert WORDS.startswith(text)


def test_a_body_in_chunks_that_is_longer_than_the_limit_is_cut_there(read):
    body = in_one_chunk(WORDS) * 2
    documents, failures = read(record("a", body, CHUNKED), limits={"max_page_bytes": 2000})
    assert documents == {"a": (WORDS[:2000], True)}
    assert failures == []


def test_a_body_of_two_frames_of_chunks_is_read(read):
    data = record("a", chunked(chunked(WORDS)), CHUNKED * 2) + record("b")
    assert read(data) == ({"a": (WORDS, False), "b": (PAGE, False)}, [])


LONG_HEADERS = {
    "folded": b"X: y\r\n" + b" z\r\n" * 1_000_000,
    "many": b"".join(b"X%d: y\r\n" % number for number in range(100_000)),
    "one line": b"X: " + b"y" * 3_000_000 + b"\r\n",
}
LONG = "its headers have more than 2,000 lines or 256 kB"


@pytest.mark.parametrize("case", LONG_HEADERS)
def test_a_response_with_headers_beyond_the_bound_is_one_failure(read, case):
    data = record("a", headers=LONG_HEADERS[case]) + record("b")
    assert read(data) == ({"b": (PAGE, False)}, [("a", LONG)])


@pytest.mark.parametrize("case", ["folded", "many"])
@pytest.mark.parametrize("before", [b"WARC-Type", b"Content-Length"])
def test_a_record_whose_own_head_is_beyond_the_bound_is_one_failure(read, case, before):
    whole = record("a").replace(before, LONG_HEADERS[case] + before, 1)
    assert read(whole + record("b")) == ({"b": (PAGE, False)}, [("a", LONG)])


def test_headers_within_the_bound_are_read(read):
    headers = b"".join(b"X%d: y\r\n" % number for number in range(1900))
    assert read(record("a", headers=headers)) == ({"a": (PAGE, False)}, [])


@pytest.mark.slow
def test_a_body_of_brotli_that_unpacks_to_gigabytes_is_cut_at_the_limit(tmp_path):
    packer = pytest.importorskip("brotli").Compressor(quality=1)
    pieces = [packer.process(b"a" * (1 << 20)) for _ in range(2000)]
    (tmp_path / "a.warc").write_bytes(record("a", b"".join([*pieces, packer.finish()]), BR))
    paths = [str(tmp_path / "a.warc")]
    done = crawled(tmp_path / "store", kind="files", name="mine", paths=paths)
    assert (done.documents, done.error) == (1, "")
    assert done.peak <= 512


@pytest.mark.slow
def test_a_page_that_takes_all_memory_to_parse_is_one_failure_without_tracebacks(tmp_path, capfd):
    """lxml used to write one for each error of the page that it could not note."""
    tag = b"<a" + b"".join(b" a%d" % number for number in range(1000)) + b">"
    (tmp_path / "a.warc.gz").write_bytes(gzip.compress(record("a", tag * 3000) + record("b")))
    paths = [str(tmp_path / "a.warc.gz")]
    done = crawled(tmp_path / "store", kind="files", name="mine", paths=paths)
    assert (done.documents, done.rejected, done.error) == (1, {"unreadable_row": 1}, "")
    assert "Traceback" not in capfd.readouterr().err
