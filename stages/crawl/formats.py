"""The kinds of files that hold documents, and how each is read: row by row, in bounded pieces, in the order of the file."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from warcio.exceptions import ArchiveLoadFailed

from data_contracts import InputError
from data_contracts.foreign_text import listed
from stages.crawl import warc_files
from stages.crawl.config import FilesSource
from stages.crawl.items import Begun, Document, Failure, Item, Items, Taking
from stages.crawl.local_files import unreadable
from stages.crawl.unpacking import Bound, lines, opened
from stages.execution.apart import too_large

WHOLE = {
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
}
LINE_TIMES = 4  # a line of JSON may be so many times as long as the longest document: escapes, and other fields
_BATCH_BYTES = 8 << 20  # of a Parquet column, as its own metadata has it
_BATCH_ROWS = 256
MAX_FAILURES = 1_000_000  # rows of one file without a document, if more than rows with one
_LONGEST_WHY = 500  # characters
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_DAMAGE = (
    EOFError,
    gzip.BadGzipFile,
    zlib.error,
    pa.ArrowInvalid,
    ArchiveLoadFailed,
    UnicodeError,
    csv.Error,
)

Reader = Callable[[FilesSource, Path], Iterator[Item]]


def read(source: FilesSource, files: list[Path]) -> Items:
    """All documents and failures of `files`, and which file is being read.

    Raises:
        InputError: For a file of a kind that is not known, that is damaged, may not be read, or does not fit into memory.
    """
    for number, path in enumerate(files):
        reader = _reader(path)
        yield Begun(number, str(path))
        yield None
        try:
            yield from _bounded(path, reader(source, path))
        except _DAMAGE as error:
            raise _damaged(path, error) from None
        except PermissionError as error:
            raise unreadable(path, error) from None
        except MemoryError:
            raise too_large(
                str(path), "needs more memory at once than reading a file may take"
            ) from None


def _bounded(path: Path, items: Iterator[Item]) -> Iterator[Item]:
    """The items of one file, unless nearly all of a great many rows are unusable.

    A few kilobytes of Parquet may hold billions of rows without text.

    Raises:
        InputError: More than `MAX_FAILURES` rows give no document, and fewer rows give one.
    """
    documents = 0
    reasons: Counter[str] = Counter()
    example = ""
    for item in items:
        if isinstance(item, Failure):
            reasons[item.reason] += 1
            example = example or f"{item.url}: {item.detail}"[:_LONGEST_WHY]
        elif isinstance(item, Document):
            documents += 1
        if reasons.total() > max(MAX_FAILURES, documents):
            counts = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
            raise InputError(
                str(path),
                f"{reasons.total():,} rows give no document ({counts}) and {documents:,} rows"
                f" give one, so the rest is not read; the first of them is {example}",
                "check text_field, or leave the file out of crawl.sources",
            )
        yield item


def is_small(files: list[Path], most: int = 4 << 20) -> bool:
    """Whether all files together are so small, and of such kinds, that nothing of them can grow while it is read."""
    plain = all(kind(path) in _GROW_LITTLE and path.suffix.lower() != ".gz" for path in files)
    return plain and sum(path.stat().st_size for path in files) <= most


def kind(path: Path) -> str:
    """The ending that tells what a file holds: of a packed one that before .gz."""
    return (Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix).lower()


def _reader(path: Path) -> Reader:
    ending = kind(path)
    if ending not in _READERS or (ending == ".parquet" and path.suffix.lower() == ".gz"):
        why = f"files ending in {ending or 'nothing'} are not known"
        raise InputError(
            str(path),
            why,
            f"name only files ending in {', '.join(_READERS)} (or, parquet apart, those with .gz)",
        )
    return _READERS[ending]


def _damaged(path: Path, error: Exception) -> InputError:
    why = f"is damaged: {error}"[:_LONGEST_WHY]  # the error may quote the file
    return InputError(str(path), why, "replace the file, or leave it out of crawl.sources")


def _taking(source: FilesSource) -> Taking:
    return Taking(source.text_field, source.media_type, source.max_page_bytes)


def _read_whole(source: FilesSource, path: Path) -> Iterator[Item]:
    with opened(path) as file:
        body = file.read(source.max_page_bytes + 1)
    yield _taking(source).whole(path.as_uri(), body, WHOLE[kind(path)], source.charset or None)


def _read_jsonl(source: FilesSource, path: Path) -> Iterator[Item]:
    taking, longest = _taking(source), LINE_TIMES * source.max_page_bytes
    with opened(path) as file:
        for number, line in enumerate(lines(file, longest), 1):
            if line is None:
                yield taking.row(
                    f"{path.as_uri()}#{number}", None, f"a line of more than {longest:,} bytes"
                )
            elif line.strip():
                yield taking.row(f"{path.as_uri()}#{number}", *_field(line, source.text_field))


def _field(line: bytes, field: str) -> tuple[Any, str]:
    """The text, or None and what is wrong with the line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return None, f"not JSON: {error}"
    except MemoryError:
        return None, f"needs more memory than reading may take: {len(line):,} bytes of JSON"
    if not isinstance(row, dict) or field not in row:
        there = listed(row) if isinstance(row, dict) else f"a {type(row).__name__}, not an object"
        return None, f"has no field {field!r}; there is {there}"
    return row[field], ""


def _read_csv(source: FilesSource, path: Path) -> Iterator[Item]:
    """Rows under a line of column names. Bytes that are not UTF-8 stay as they are."""
    taking = _taking(source)
    csv.field_size_limit(LINE_TIMES * source.max_page_bytes)
    with opened(path) as file:
        table = csv.reader(
            _text_lines(file, LINE_TIMES * source.max_page_bytes), delimiter=_DELIMITERS[kind(path)]
        )
        names = next(table, [])
        if source.text_field not in names:
            raise _no_column(source, path, names)
        column = names.index(source.text_field)
        for number, row in enumerate(table, 1):
            url = f"{path.as_uri()}#{number}"
            if len(row) > column:
                yield taking.row(url, row[column].encode("utf-8", "surrogateescape"))
            elif row:
                yield taking.row(
                    url, None, f"has {len(row)} fields, {source.text_field!r} is field {column + 1}"
                )


def _text_lines(file: Any, longest: int) -> Iterator[str]:
    for number, line in enumerate(lines(file, longest), 1):
        if line is None:
            raise csv.Error(f"line {number} has more than {longest:,} bytes")
        yield line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")


def _no_column(source: FilesSource, path: Path, names: list[str]) -> InputError:
    if not names:
        why = "is empty: it has no line of column names"
        return InputError(str(path), why, "leave it out of crawl.sources")
    fix = f"set text_field of crawl.sources {source.name} to one of: {listed(names)}"
    return InputError(str(path), f"has no column {source.text_field!r}", fix)


def _read_parquet(source: FilesSource, path: Path) -> Iterator[Item]:
    taking, bound = _taking(source), Bound(path)
    with _parquet(path) as file:
        names = file.schema_arrow.names
        if source.text_field not in names:
            raise _no_column(source, path, names)
        number = 0
        for batch in _batches(path, file, source.text_field):
            bound.add(batch.nbytes)
            for value in batch.column(0):
                number += 1
                yield taking.row(f"{path.as_uri()}#{number}", value.as_py())


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, buffer_size=1 << 20)
    except (PermissionError, MemoryError):
        raise
    except (OSError, pa.ArrowException) as error:  # Thrift raises a plain OSError for a bad footer
        raise _damaged(path, error) from None


def _batches(path: Path, file: pq.ParquetFile, column: str) -> Iterator[pa.RecordBatch]:
    """Of few rows where they are long. What the metadata says of that need not be true: memory is bounded around this."""
    try:
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            fitting = group.num_rows * _BATCH_BYTES // max(group.total_byte_size, 1)
            yield from file.iter_batches(
                max(1, min(_BATCH_ROWS, fitting)),
                row_groups=[number],
                columns=[column],
                use_threads=False,
            )
    except MemoryError:
        raise
    except (
        OSError,
        pa.ArrowException,
    ) as error:  # of pages that are damaged; only of reading, not of what is done with the rows
        raise _damaged(path, error) from None


_TABLES: dict[str, Reader] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_csv,
}
_GROW_LITTLE = frozenset(WHOLE) | frozenset(_TABLES)
_ARCHIVES: dict[str, Reader] = {
    ".parquet": _read_parquet,
    ".warc": warc_files.read,
    ".arc": warc_files.read,
}
_READERS: dict[str, Reader] = dict.fromkeys(WHOLE, _read_whole) | _TABLES | _ARCHIVES
