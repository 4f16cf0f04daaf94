"""Documents of web archives that others made, with the evidence that their records hold."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path

from lxml import etree
from warcio.archiveiterator import ArchiveIterator
from warcio.bufferedreaders import DecompressingBufferedReader
from warcio.exceptions import ArchiveLoadFailed
from warcio.recordloader import ArcWarcRecord

from stages.crawl.config import FilesSource
from stages.crawl.fetch import Answer
from stages.crawl.items import Document, Failure, Item
from stages.crawl.page import WANTED
from stages.crawl.page import read as read_page
from stages.crawl.unpacking import opened_by_content
from stages.crawl.urls import canonical
from stages.documentation_server import is_documentation_server

_RESERVED = "the address is that of the built-in documentation server, and this page is none of its"
_BLOCK, _LONGEST_LINE = 1 << 16, 1 << 20  # bytes
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
_CONFUSED = (AttributeError, IndexError, KeyError, TypeError, ValueError)


def read(source: FilesSource, path: Path) -> Iterator[Item]:
    """One item per response, but for those of robots.txt."""
    with opened_by_content(path) as file:
        for record in _records(file):
            if record.rec_type is None:
                yield Failure(
                    path.as_uri(),
                    "unreadable_row",
                    "a record that does not say of which type it is (WARC-Type)",
                )
                continue
            if record.rec_type != "response" or record.http_headers is None:
                continue
            address = record.rec_headers.get_header("WARC-Target-URI") or ""
            if address.split("?")[0].endswith("/robots.txt"):
                continue
            try:
                url, began = (
                    canonical(address),
                    datetime.fromisoformat(record.rec_headers.get_header("WARC-Date") or ""),
                )
                began = began.astimezone(UTC)
            except (ValueError, OverflowError) as error:
                yield Failure(
                    address or path.as_uri(),
                    "unreadable_row",
                    f"WARC-Target-URI or WARC-Date: {error}"[:300],
                )
                continue
            yield _response(source, url, began, record)


def _records(file: BufferedReader) -> Iterator[ArcWarcRecord]:
    """Raises ArchiveLoadFailed if no record is of a type that archives have: warcio makes one of any bytes."""
    with _parsing():
        is_empty = not file.peek(1)
        records = ArchiveIterator(file, arc2warc=True)
        records.reader = _Reader(records.fh, block_size=_BLOCK)
    sound = 0
    while True:
        with _parsing():
            record = next(records, None)
        if record is None:
            break
        sound += record.rec_type in _TYPES
        yield record
    if not sound and not is_empty:
        raise ArchiveLoadFailed("it holds no record of an archive")


class _Reader(DecompressingBufferedReader):
    """warcio's reader, for lines that end: of one that does not, it takes time with the square of its length."""

    def readline(self, length: int | None = None) -> bytes:
        most = _LONGEST_LINE + 1 if length is None else min(length, _LONGEST_LINE + 1)
        line = bytearray()
        while len(line) < most and (
            piece := super().readline(most - len(line))
        ):  # may give less than the line has
            line += piece
            if line.endswith(b"\n"):
                break
        if len(line) > _LONGEST_LINE:
            raise ArchiveLoadFailed(
                f"it has a line of more than {_LONGEST_LINE:,} bytes where a header should be"
            )
        return bytes(line)


@contextmanager
def _parsing() -> Iterator[None]:
    """Keeps from the terminal what warcio writes of damaged records, which is their own bytes.

    Raises ArchiveLoadFailed for what warcio stumbles over: it takes the fields of a record to be there and sound.
    """
    try:
        with redirect_stderr(io.StringIO()):
            yield
    except _CONFUSED as error:
        raise ArchiveLoadFailed(
            f"it has a record that cannot be parsed ({type(error).__name__}: {error})"
        ) from None


def _response(source: FilesSource, url: str, began: datetime, record: ArcWarcRecord) -> Item:
    code = record.http_headers.get_statuscode() or "0"
    if not re.fullmatch(r"[0-9]{1,9}", code):
        return Failure(url, "unreadable_row", f"the status is {code[:80]!r}, not a number")
    status = int(code)
    if is_documentation_server(url):
        return Failure(url, "address_refused", _RESERVED, status)
    with _parsing():
        body = record.content_stream().read(source.max_page_bytes + 1)
    cut = (
        len(body) > source.max_page_bytes
        or record.rec_headers.get_header("WARC-Truncated") is not None
    )
    answer = Answer(
        url=url, status=status, phrase="", headers=tuple(record.http_headers.headers), asked_with=(),
        body=body[: source.max_page_bytes], truncated=cut, began=began,
    )  # fmt: skip
    if status != 200:
        return Failure(url, "http_status", str(status), status)
    if answer.media_type not in WANTED:
        return Failure(url, "media_type", answer.media_type[:100], status)
    if not body.strip():
        return Failure(url, "empty", "the body is empty", status)
    return _page(answer)


def _page(answer: Answer) -> Item:
    try:
        told = read_page(answer)
    except (MemoryError, etree.LxmlError) as error:
        why = f"a page of {len(answer.body):,} bytes that cannot be read: {type(error).__name__} {error}"
        return Failure(answer.url, "unreadable_row", why, 200, claims=True)
    if told.opt_out:
        return Failure(
            answer.url, "robots", f"the page asks not to be used: {told.opt_out}", 200, claims=True
        )
    return Document(
        answer.url, answer.body, answer.evidence(told.meta_robots, told.license), answer.fetch
    )
