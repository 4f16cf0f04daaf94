"""Records of web archives that others made, read with warcio and checked for what it assumes.

warcio assumes that a record has its fields, that lines end, and that Content-Length is true
(ISO 28500).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from io import BufferedReader
from typing import Any

from warcio.archiveiterator import ArchiveIterator
from warcio.bufferedreaders import DecompressingBufferedReader
from warcio.exceptions import ArchiveLoadFailed
from warcio.recordloader import ArcWarcRecord, ArcWarcRecordLoader
from warcio.statusandheaders import StatusAndHeaders, StatusAndHeadersParser

from stages.crawl.chunked_bodies import ChunkedBody
from stages.crawl.packed_bodies import Body, Stream, UnreadableBodyError, unpacked

MAX_LINE_BYTES = 1 << 20
MAX_HEAD_BYTES = 1 << 18  # of a record, and of the HTTP response in it
MAX_HEAD_LINES = 2000
_BLOCK = 1 << 16  # bytes read at a time
_TYPES = frozenset(
    {
        "arc_header",
        "continuation",
        "conversion",
        "metadata",
        "request",
        "resource",
        "response",
        "revisit",
        "warcinfo",
    }
)
_WARCIO_ERRORS = (AttributeError, IndexError, KeyError, TypeError, ValueError)
_NEEDED = (b"content-length:", b"warc-target-uri:", b"warc-type:")  # to find what follows a record
_LENGTH = re.compile(r"[0-9]{1,18}")
_EMPTY_LINE = b"\r\n\r\n"
_NEXT_RECORD = re.compile(rb"\r\n\r\nWARC/(?:1\.|0\.1)")
_NEXT_ARC_RECORD = re.compile(
    rb"\nhttps?://[^ \r\n]{1,2048} [0-9A-Fa-f.:]{3,45} [0-9]{14} "  # address, IP, date
    rb"[^ \r\n]{1,80} [0-9]{1,12}\r?\nHTTP/"  # media type, length
)
_HEAD_BYTES = 2300  # of what shows that another record begins


class WarcRecord:
    """A record with what `read_body` and `finish` find out about its length."""

    def __init__(self, record: ArcWarcRecord, records: ArchiveIterator):
        self._record, self._records = record, records
        # The head of a response ends with an empty line, as what is before a record does.
        before = _EMPTY_LINE if record.http_headers is not None else b""
        next_record = _NEXT_ARC_RECORD if record.rec_headers.is_arc else _NEXT_RECORD
        self._block = _WatchedStream(record.raw_stream, before, next_record)
        record.raw_stream = self._block
        self._errors_before = records.err_count
        self.type: str | None = _in_lower_case(record.rec_type)
        length = self.header("Content-Length") or ""
        self.has_length = _LENGTH.fullmatch(length.strip()) is not None
        self.http_headers = record.http_headers
        heads = (record.rec_headers, record.http_headers)
        self.has_long_head = any(getattr(head, "is_too_long", False) for head in heads)
        self.is_short = False  # the archive ends before the record does
        self.is_misaligned = False  # no empty line follows the record
        self.holds_next_record = False

    @property
    def lacks_http_headers(self) -> bool:
        """Whether the record states that it holds HTTP, and no HTTP headers were found."""
        media_type = self.header("Content-Type") or ""
        return self.http_headers is None and media_type.lower().startswith("application/http")

    def header(self, name: str) -> str | None:
        """Return a header of the record (not of the HTTP response in it)."""
        value: str | None = self._record.rec_headers.get_header(name)
        return value

    def read_body(self, limit: int) -> Body:
        """At most `limit` bytes of the HTTP body, unpacked.

        Raises:
            UnreadableBodyError: The body is packed in a way that is not supported, or damaged.
            ArchiveLoadFailed: The record cannot be parsed.
        """
        with parsing():
            stream: Stream = self._block
            framings = re.split(r"[\s,]+", self._http_values("transfer-encoding").lower())
            encodings = [self._http_values("content-encoding")]
            encodings += [name for name in framings if name and name != "chunked"]
            times = framings.count("chunked")
            # Twice if a proxy repeats the header; the second is read as it is.
            if times > 2 or (times and framings[-1] not in ("", "chunked")):
                stated = ",".join(framings)[:80]
                raise UnreadableBodyError(f"Transfer-Encoding {stated} is not supported")
            frames = []
            for _ in range(times):
                stream = ChunkedBody(stream)
                frames.append(stream)
            body = unpacked(stream, ",".join(filter(None, encodings)), limit)
            if len(body.bytes) < limit:
                for frame in reversed(frames):
                    _read_to_end(frame)
            return replace(body, is_cut=body.is_cut or any(frame.is_cut for frame in frames))

    def _http_values(self, name: str) -> str:
        """Return the values of all HTTP headers of this name."""
        headers = self.http_headers.headers
        return ",".join(value for stated, value in headers if stated.lower() == name)

    def finish(self) -> None:
        """Read the record to its end, and look at what follows."""
        with parsing():
            _read_to_end(self._block)
            self._records.read_to_end()
        self.is_short = self._block.remaining > 0
        self.is_misaligned = self._records.err_count > self._errors_before
        self.holds_next_record = self._block.holds_next_record and not self._has_http_length()

    def _has_http_length(self) -> bool:
        """Return whether the HTTP response itself states the length that the record has."""
        if self._record.payload_length < 0:  # it is not known
            return False
        stated = self.http_headers.get_header("content-length") if self.http_headers else None
        return stated is not None and stated.strip() == str(self._record.payload_length)


def _read_to_end(stream: Stream) -> None:
    while stream.read(_BLOCK):
        pass


class _WatchedStream:
    """The block of a record. Notices what looks like the head of another record in it."""

    def __init__(self, stream: Any, before: bytes, next_record: re.Pattern[bytes]):
        self._stream = stream
        self._next_record = next_record
        self._tail = before
        self.holds_next_record = False

    @property
    def remaining(self) -> int:
        """Bytes that the record should have according to its Content-Length and does not."""
        return int(getattr(self._stream, "limit", 0))

    def read(self, length: int | None = None) -> bytes:
        return self._look_at(self._stream.read(length))

    def readline(self, length: int | None = None) -> bytes:
        return self._look_at(self._stream.readline(length))

    def _look_at(self, piece: bytes) -> bytes:
        seen = self._tail + piece
        if self._next_record.search(seen):
            self.holds_next_record = True
        self._tail = seen[-_HEAD_BYTES:]
        return piece


def read_records(file: BufferedReader) -> Iterator[WarcRecord]:
    """Yield the records of an archive. Each is read to its end before the next one is given.

    Raises:
        ArchiveLoadFailed: The file cannot be parsed, or none of its records is of a known type;
            warcio makes a record of any bytes.
    """
    with parsing():
        is_empty = not file.peek(1)
        records = ArchiveIterator(file, arc2warc=True)
        records.loader = _Loader(arc2warc=True)
        records.loader.warc_parser = _BoundedParser(records.loader.WARC_TYPES, is_outer=True)
        records.loader.http_parser = _BoundedParser(records.loader.HTTP_TYPES)
        records.loader.http_req_parser = _BoundedParser(records.loader.HTTP_VERBS)
        # warcio's own unpacking ends at damage as at the end of the file.
        records.reader = _BoundedLineReader(records.fh, block_size=_BLOCK, decomp_type=None)
    known = 0
    while True:
        with parsing():
            parsed = next(records, None)
        if parsed is None:
            break
        record = WarcRecord(parsed, records)
        known += record.type in _TYPES
        yield record
    if not known and not is_empty:
        raise ArchiveLoadFailed("it holds no record of an archive")


class _Loader(ArcWarcRecordLoader):
    """Takes types and schemes in capitals for what they are.

    warcio parses no HTTP headers then, and takes a record without a block for the end of the file.
    """

    def _detect_type_load_headers(
        self, stream: Any, statusline: bytes | None = None, known_format: str | None = None
    ) -> tuple[str, StatusAndHeaders]:
        found: tuple[str, StatusAndHeaders] = super()._detect_type_load_headers(
            stream, statusline, known_format
        )
        kind, headers = found
        headers.is_arc = kind == "arc2warc"
        return found

    def load_http_headers(
        self, rec_type: str | None, uri: str | None, stream: Any, length: int | None
    ) -> StatusAndHeaders | None:
        try:
            headers: StatusAndHeaders | None = super().load_http_headers(
                _in_lower_case(rec_type), _in_lower_case(uri), stream, length
            )
        except EOFError:
            return None
        return headers


def _in_lower_case(text: str | None) -> str | None:
    return None if text is None else text.strip().lower()


class _BoundedLineReader(DecompressingBufferedReader):
    """Refuses lines without end, on which warcio spends the square of their length."""

    def readline(self, length: int | None = None) -> bytes:
        max_bytes = MAX_LINE_BYTES + 1
        if length is not None:
            max_bytes = min(length, max_bytes)
        line = bytearray()
        while len(line) < max_bytes:
            piece = super().readline(max_bytes - len(line))  # may be a part of the line
            line += piece
            if not piece or line.endswith(b"\n"):
                break
        if len(line) > MAX_LINE_BYTES:
            raise ArchiveLoadFailed(
                f"it has a line of more than {MAX_LINE_BYTES:,} bytes where a header should be"
            )
        return bytes(line)


class _BoundedParser(StatusAndHeadersParser):
    """Reads so much of a head, and marks one that is longer.

    A few kB of gzip hold millions of lines, and a header may go on over all of them.
    """

    def __init__(self, first_words: list[str], is_outer: bool = False):
        super().__init__(first_words, verify=is_outer)
        self._is_outer = is_outer

    def parse(self, stream: Any, full_statusline: bytes | None = None) -> StatusAndHeaders:
        head = _Head(stream, self._is_outer)
        headers = super().parse(head, full_statusline)
        headers.is_too_long = head.is_too_long
        return headers


class _Head:
    """The lines of a head. It ends at the bound, or holds only the most needed lines behind it."""

    def __init__(self, stream: Any, is_outer: bool):
        self._stream, self._is_outer = stream, is_outer
        self._lines, self._bytes = MAX_HEAD_LINES, MAX_HEAD_BYTES
        self._needed = list(_NEEDED)
        self.is_too_long = False

    def readline(self) -> bytes:
        if not self.is_too_long:
            # The line may be cut: nothing behind the head of the HTTP response is needed.
            line: bytes = self._stream.readline(None if self._is_outer else self._bytes)
            self._lines -= 1
            self._bytes -= len(line)
            if self._lines > 0 and self._bytes > 0:
                return line
            self.is_too_long = True
        return self._next_needed() if self._is_outer else b""

    def _next_needed(self) -> bytes:
        """Return a line that is needed to find the next record, or the one that ends the head."""
        while line := self._stream.readline():
            name = next(filter(line.lower().startswith, self._needed), None)
            if name:
                self._needed.remove(name)
                return bytes(line)
            if not line.strip():
                break
        return b""


@contextmanager
def parsing() -> Iterator[None]:
    """Enclose calls of warcio. Its error output repeats bytes of the file and is not shown.

    Raises:
        ArchiveLoadFailed: warcio stumbles over a record whose fields are missing or malformed.
    """
    try:
        with redirect_stderr(io.StringIO()):
            yield
    except _WARCIO_ERRORS as error:
        raise ArchiveLoadFailed(
            f"it has a record that cannot be parsed ({type(error).__name__}: {error})"
        ) from None
