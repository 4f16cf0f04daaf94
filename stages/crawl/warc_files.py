"""Documents of web archives that others made, with the evidence that their records hold."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import redirect_stderr
from datetime import UTC, datetime
from pathlib import Path

from stages.crawl.config import FilesSource
from stages.crawl.fetch import HttpResponse
from stages.crawl.items import Document, Failure, Item
from stages.crawl.packed_bodies import Body, UnreadableBodyError
from stages.crawl.page import WANTED, UnreadablePageError
from stages.crawl.page import read as read_page
from stages.crawl.unpacking import begins_packed, opened_by_content
from stages.crawl.urls import canonical
from stages.crawl.warc_reader import MAX_HEAD_BYTES, MAX_HEAD_LINES, WarcRecord, read_records
from stages.documentation_server import is_documentation_server

_RESERVED = "the address belongs to the built-in documentation server, which did not send this page"
_PACKED_TWICE = "the archive is packed twice with gzip, so that damage inside could not be noticed"
_UNPACK_IT_ONCE = "unpack the archive once, and name what comes out in crawl.sources"
_NO_TYPE = "a record that does not state its type (WARC-Type)"
_NO_LENGTH = "a record does not state its length (Content-Length): those behind it may be lost"
_NO_HTTP = (
    "the record is said to hold an HTTP response and holds none, or its address is not of HTTP"
)
_SHORT = "a record ends before its Content-Length: the archive was cut, or that length is wrong"
_SWALLOWED = "the Content-Length of the record is wrong: the record includes the one behind it"
_LONG_HEAD = f"its headers have more than {MAX_HEAD_LINES:,} lines or {MAX_HEAD_BYTES >> 10:,} kB"
_NO_MEMORY = "the body takes more memory than there is"
_CUT_BODY = "the body, packed or in chunks, is cut, and nothing marks the record as cut"


class _Nowhere(io.TextIOBase):
    """Takes what is written, without memory for it."""

    def write(self, text: str, /) -> int:
        return len(text)


def read(source: FilesSource, path: Path) -> Iterator[Item]:
    """Yield one item per response except those of robots.txt, and one per sign of damage.

    Args:
        source: The settings.
        path: The archive.
    """
    with opened_by_content(path) as file:
        if begins_packed(file):
            yield Failure(path.as_uri(), "unreadable_row", _PACKED_TWICE, fix=_UNPACK_IT_ONCE)
            return
        for record in read_records(file):
            is_counted_as_swallowing = False
            for item in _read_record(source, path, record):
                yield item
                is_counted_as_swallowing = isinstance(item, Failure) and item.detail == _SWALLOWED
            record.finish()
            if record.is_short:
                yield Failure(path.as_uri(), "unreadable_row", _SHORT)
            # Without a length, it is counted, and ends where the archive does.
            is_counted = is_counted_as_swallowing or not record.has_length
            if record.holds_next_record and not is_counted:
                yield Failure(path.as_uri(), "unreadable_row", _SWALLOWED)


def _read_record(source: FilesSource, path: Path, record: WarcRecord) -> Iterator[Item]:
    """Yield what a record gives: nothing, if it is neither a response nor damaged."""
    if not record.has_length:
        yield Failure(path.as_uri(), "unreadable_row", _NO_LENGTH)
    elif record.type is None:
        yield Failure(path.as_uri(), "unreadable_row", _NO_TYPE)
    elif record.type == "response" and record.lacks_http_headers:
        address = record.header("WARC-Target-URI") or path.as_uri()
        yield Failure(address, "unreadable_row", _NO_HTTP)
    elif record.type == "response" and record.http_headers is not None:
        yield from _read_response(source, path, record)


def _read_response(source: FilesSource, path: Path, record: WarcRecord) -> Iterator[Item]:
    """Yield the item of a response; none for robots.txt."""
    address = record.header("WARC-Target-URI") or ""
    path_of_address, _, _ = address.partition("?")
    if path_of_address.endswith("/robots.txt"):
        return
    if record.has_long_head:
        yield Failure(address or path.as_uri(), "unreadable_row", _LONG_HEAD)
        return
    try:
        url = canonical(address)
        date = record.header("WARC-Date") or ""
        began = datetime.fromisoformat(date).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        detail = f"WARC-Target-URI or WARC-Date: {error}"[:300]
        yield Failure(address or path.as_uri(), "unreadable_row", detail)
        return
    yield _response(source, url, began, record)


def _response(source: FilesSource, url: str, began: datetime, record: WarcRecord) -> Item:
    code = record.http_headers.get_statuscode() or "0"
    if not re.fullmatch(r"[0-9]{1,9}", code):
        return Failure(url, "unreadable_row", f"the status is {code[:80]!r}, not a number")
    status = int(code)
    if is_documentation_server(url):
        return Failure(url, "address_refused", _RESERVED, status)
    body, problem = _body(record, source.limits.max_page_bytes + 1)
    record.finish()
    if record.holds_next_record:
        return Failure(url, "unreadable_row", _SWALLOWED, status)
    marks = [record.header(name) for name in ("WARC-Truncated", "WARC-Segment-Number")]
    is_marked = any(mark is not None for mark in marks)
    is_cut = is_marked or record.is_short or record.is_misaligned
    if body.is_cut and not is_cut:
        problem = _CUT_BODY
    is_too_long = len(body.bytes) > source.limits.max_page_bytes
    response = HttpResponse(
        url=url,
        status=status,
        phrase="",
        headers=tuple(record.http_headers.headers),
        asked_with=(),
        body=body.bytes[: source.limits.max_page_bytes],
        truncated=is_too_long or is_cut,
        began=began,
    )
    return _item(response, problem, is_empty=not body.bytes.strip())


def _body(record: WarcRecord, limit: int) -> tuple[Body, str]:
    """Return the body of a response, and why it cannot be read, if so."""
    try:
        return record.read_body(limit), ""
    except UnreadableBodyError as error:
        return Body(b""), str(error)
    except MemoryError:
        return Body(b""), _NO_MEMORY


def _item(response: HttpResponse, problem: str, is_empty: bool) -> Item:
    """Return a document, or why the response is none."""
    url, status = response.url, response.status
    if status != 200:
        return Failure(url, "http_status", str(status), status)
    if response.media_type not in WANTED:
        return Failure(url, "media_type", response.media_type[:100], status)
    if problem:
        return Failure(url, "unreadable_row", problem, status)
    if is_empty:
        return Failure(url, "empty", "the body is empty", status)
    return _page(response)


def _page(response: HttpResponse) -> Item:
    try:
        # A parser that runs out of memory writes a traceback for each error that it cannot note.
        with redirect_stderr(_Nowhere()):
            page = read_page(response)
    except UnreadablePageError as error:
        return Failure(response.url, "unreadable_row", str(error), 200, claims=True)
    if page.opt_out:
        detail = f"the page asks not to be used: {page.opt_out}"
        return Failure(response.url, "robots", detail, 200, claims=True)
    columns = response.evidence(page.meta_robots, page.license)
    return Document(response.url, response.body, columns, response.fetch)
