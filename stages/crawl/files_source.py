"""Documents from local files. Order: path, then row; so the same files give the same artifact, and a rerun simply reads again."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed
from warcio.recordloader import ArcWarcRecord

from data_contracts import InputError, Interrupted
from stages.crawl.config import FilesSource, unreadable
from stages.crawl.fetch import Answer
from stages.crawl.page import WANTED, Told, read
from stages.crawl.rows import Rows
from stages.crawl.urls import canonical
from stages.report import Report

WHOLE = {".txt": "text/plain", ".md": "text/markdown", ".markdown": "text/markdown", ".html": "text/html", ".htm": "text/html"}
_MAX_LINE = 1 << 30  # bytes of one JSON line
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, pa.ArrowInvalid, ArchiveLoadFailed, UnicodeError)


def collect(source: FilesSource, rows: Rows, report: Report, stop: Callable[[], bool]) -> list[str]:
    """All documents of the files into `rows`; returns notes.

    Raises InputError for a file of a kind that is not known, that is damaged or may not be read, Interrupted at a wish to stop.
    """
    files = source.files()
    seen: set[str] = set()  # addresses from archives: the only rows whose address is not their place
    for number, path in enumerate(files):
        reader = _reader(path, seen)
        try:
            for _ in reader(source, path, rows):
                if stop():
                    raise Interrupted(f"crawl source {source.name}", f"stopped by a signal in {path}", "run the same command again")
                if rows.documents[source.name] >= source.max_documents:
                    return [f"{source.name}: cut short by the limit of {source.max_documents:,} documents, in {path}"]
        except _DAMAGE as error:
            raise _damaged(path, error) from None
        except PermissionError as error:
            raise unreadable(path, error) from None
        report.progress(number + 1, len(files), "files")
    return []


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(str(path), f"is damaged: {error}", "replace the file, or leave it out of crawl.sources")


Reader = Callable[[FilesSource, Path, Rows], Iterator[None]]


def _reader(path: Path, seen: set[str]) -> Reader:
    suffix = Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    readers: dict[str, Reader] = dict.fromkeys(WHOLE, _read_whole)
    warc = partial(_read_warc, seen=seen)
    readers |= {".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".parquet": _read_parquet, ".warc": warc, ".arc": warc}
    if suffix not in readers or (suffix == ".parquet" and path.suffix == ".gz"):
        why = f"files ending in {suffix or 'nothing'} are not known"
        raise InputError(str(path), why, f"name only files ending in {', '.join(readers)} (or, parquet apart, those with .gz)")
    return readers[suffix]


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")


def _read_whole(source: FilesSource, path: Path, rows: Rows) -> Iterator[None]:
    suffix = Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix
    with _open(path) as file:
        body = file.read(source.max_page_bytes + 1)
    _take(source, rows, path.as_uri(), body, WHOLE[suffix.lower()], source.charset or None)
    yield


def _read_jsonl(source: FilesSource, path: Path, rows: Rows) -> Iterator[None]:
    with _open(path) as file:
        number = 0
        while line := file.readline(_MAX_LINE):
            number += 1
            if line.strip():
                take_text(source, rows, f"{path.as_uri()}#{number}", *_field(line, source.text_field))
                yield


def _field(line: bytes, field: str) -> tuple[Any, str]:
    """The text, or None and what is wrong with the line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return None, f"not JSON: {error}"
    if not isinstance(row, dict) or field not in row:
        there = ", ".join(list(row)[:10]) if isinstance(row, dict) else f"a {type(row).__name__}, not an object"
        return None, f"has no field {field!r}; there is {there}"
    return row[field], ""


def _read_parquet(source: FilesSource, path: Path, rows: Rows) -> Iterator[None]:
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if source.text_field not in names:
            fix = f"set text_field of crawl.sources {source.name} to one of: {', '.join(names[:20])}"
            raise InputError(str(path), f"has no column {source.text_field!r}", fix)
        number = 0
        for batch in _batches(path, file, source.text_field):
            for value in batch.column(0):
                number += 1
                take_text(source, rows, f"{path.as_uri()}#{number}", value.as_py(), "")
                yield


def _batches(path: Path, file: pq.ParquetFile, column: str) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(256, columns=[column])
    except (OSError, pa.ArrowException) as error:  # of pages that are damaged; only of reading, not of what is done with the rows
        raise _damaged(path, error) from None


def take_text(source: Any, rows: Rows, url: str, text: Any, wrong: str) -> None:
    """A row of a table: a document if it holds text or bytes, else a failure."""
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    if not isinstance(text, bytes):
        rows.failure(source.name, url, "unreadable_row", wrong or f"{source.text_field!r} is a {type(text).__name__}, not text")
        return
    _take(source, rows, url, text[: source.max_page_bytes + 1], source.media_type, "utf-8")


def _take(source: Any, rows: Rows, url: str, body: bytes, media_type: str, charset: str | None) -> None:
    if not body.strip():
        rows.failure(source.name, url, "empty", "holds nothing but blanks")
        return
    limit = source.max_page_bytes
    rows.document(source.name, url, body[:limit], media_type=media_type, charset=charset, truncated=len(body) > limit)


def _read_warc(source: FilesSource, path: Path, rows: Rows, seen: set[str]) -> Iterator[None]:
    """Responses of an archive, with their evidence. A second response of the same address is a failure."""
    with path.open("rb") as file:
        for record in ArchiveIterator(file, arc2warc=True):
            if record.rec_type != "response" or record.http_headers is None:
                continue
            address = record.rec_headers.get_header("WARC-Target-URI") or ""
            if address.split("?")[0].endswith("/robots.txt"):
                continue
            try:
                url, began = canonical(address), datetime.fromisoformat(record.rec_headers.get_header("WARC-Date") or "")
                began = began.astimezone(UTC)
            except (ValueError, OverflowError) as error:
                rows.failure(source.name, address or path.as_uri(), "unreadable_row", f"WARC-Target-URI or WARC-Date: {error}")
                continue
            _take_response(source, rows, url, began, record, seen)
            yield


def _take_response(source: FilesSource, rows: Rows, url: str, began: datetime, record: ArcWarcRecord, seen: set[str]) -> None:
    code = record.http_headers.get_statuscode() or "0"
    if not re.fullmatch(r"[0-9]{1,9}", code):
        rows.failure(source.name, url, "unreadable_row", f"the status is {code[:80]!r}, not a number")
        return
    status = int(code)
    body = record.content_stream().read(source.max_page_bytes + 1)
    answer = Answer(
        url=url, status=status, phrase="", headers=tuple(record.http_headers.headers), asked_with=(), body=body[: source.max_page_bytes],
        truncated=len(body) > source.max_page_bytes or record.rec_headers.get_header("WARC-Truncated") is not None,
        began=began,
    )  # fmt: skip
    if status != 200:
        rows.failure(source.name, url, "http_status", str(status), status=status)
    elif answer.media_type not in WANTED:
        rows.failure(source.name, url, "media_type", answer.media_type[:100], status=200)
    elif not body.strip():
        rows.failure(source.name, url, "empty", "the body is empty", status=200)
    elif url in seen:
        rows.failure(source.name, url, "duplicate_address", "an earlier record has the same address", status=200)
    else:
        seen.add(url)
        told: Told = read(answer)
        if told.opt_out:
            rows.failure(source.name, url, "robots", f"the page asks not to be used: {told.opt_out}", status=200)
            return
        rows.document(source.name, url, answer.body, fetch=answer.fetch, **answer.evidence(told.meta_robots, told.license))
