"""The kinds of files that hold documents, and how each is read: row by row, in bounded pieces."""

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
# A line of JSON may be this many times as long as the longest document: escapes, other fields.
LINE_TIMES = 4
_BATCH_BYTES = 8 << 20  # of a Parquet column, according to its metadata
_BATCH_ROWS = 256
MAX_FAILURES = 1_000_000  # rows of one file without a document, if more than rows with one
_LONGEST_WHY = 500  # characters
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_END = "\ud800"  # follows the last line of a CSV file; no bytes decode to it
_SMALLER_ROWS = "split the rows that are too large, or raise limits.max_page_bytes"
_UTF_8 = "convert the file to UTF-8: iconv -f UTF-16 -t UTF-8 FILE"
_ONE_OBJECT_PER_LINE = "write one JSON object per line, in UTF-8"
_DISTINCT_NAMES = "rename the fields, so that one has the name of text_field"
_CLOSE_THE_QUOTE = "close that quote, or double the quotes that belong to the text"
_ALL_FIELDS = "give every row as many fields as there are column names"
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
    """Yield all documents and failures of `files`, and which file is being read.

    Raises:
        InputError: A file is of an unknown kind, is damaged, may not be read, or needs too much
            memory.
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
    """Yield the items of one file, unless nearly all of a great many rows are unusable.

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
            raise _mostly_unusable(path, reasons, documents, example)
        yield item


def _mostly_unusable(path: Path, reasons: Counter[str], documents: int, example: str) -> InputError:
    counts = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
    return InputError(
        str(path),
        f"{reasons.total():,} rows give no document ({counts}) and {documents:,} rows"
        f" give one, so the rest is not read; the first of them is {example}",
        "check text_field, or leave the file out of crawl.sources",
    )


def is_small(files: list[Path], most: int = 4 << 20) -> bool:
    """Return whether the files are small, and of kinds that take little memory to read."""
    total = 0
    for path in files:
        if _is_packed(path) or kind(path) not in _GROW_LITTLE:
            return False
        total += path.stat().st_size
    return total <= most


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def kind(path: Path) -> str:
    """Return the suffix that states what a file holds; of a packed file the one before .gz."""
    suffix = path.suffix
    if _is_packed(path):
        suffix = Path(path.stem).suffix
    return suffix.lower()


def _reader(path: Path) -> Reader:
    """Return the function that reads files of this kind.

    Raises:
        InputError: The kind is not known.
    """
    ending = kind(path)
    is_packed_parquet = ending == ".parquet" and _is_packed(path)
    if ending in _READERS and not is_packed_parquet:
        return _READERS[ending]
    known = ", ".join(_READERS)
    raise InputError(
        str(path),
        f"files ending in {ending or 'nothing'} are not known",
        f"name only files ending in {known} (or, parquet apart, those with .gz)",
    )


def _damaged(path: Path, error: Exception) -> InputError:
    why = f"is damaged: {error}"[:_LONGEST_WHY]  # the error may quote the file
    return InputError(str(path), why, "replace the file, or leave it out of crawl.sources")


def _taking(source: FilesSource) -> Taking:
    return Taking(source.text_field, source.media_type, source.limits.max_page_bytes)


def _read_whole(source: FilesSource, path: Path) -> Iterator[Item]:
    with opened(path) as file:
        body = file.read(source.limits.max_page_bytes + 1)
    media_type = WHOLE[kind(path)]
    charset = source.charset or None
    yield _taking(source).whole(path.as_uri(), body, media_type, charset)


def _read_jsonl(source: FilesSource, path: Path) -> Iterator[Item]:
    max_bytes = LINE_TIMES * source.limits.max_page_bytes
    with opened(path) as file:
        for number, line in enumerate(lines(file, max_bytes), 1):
            url = f"{path.as_uri()}#{number}"
            if line is None:
                detail = f"a line of more than {max_bytes:,} bytes"
                yield Failure(url, "unreadable_row", detail, fix=_SMALLER_ROWS)
            elif line.strip():
                yield _json_row(source, url, line)


def _json_row(source: FilesSource, url: str, line: bytes) -> Item:
    field = source.text_field
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        if b"\0" in line:
            detail = "not JSON in UTF-8: it has null bytes, as UTF-16 has"
            return Failure(url, "unreadable_row", detail, fix=_UTF_8)
        return Failure(url, "unreadable_row", f"not JSON: {error}", fix=_ONE_OBJECT_PER_LINE)
    except MemoryError:
        detail = f"needs more memory than reading may take: {len(line):,} bytes of JSON"
        return Failure(url, "unreadable_row", detail, fix=_SMALLER_ROWS)
    if not isinstance(row, dict):
        detail = f"has no field {field!r}; there is a {type(row).__name__}, not an object"
        return Failure(url, "unreadable_row", detail, fix=_ONE_OBJECT_PER_LINE)
    if field not in row:
        detail = f"has no field {field!r}; there is {listed(row)}"
        return Failure(url, "unreadable_row", detail)
    if _count_of_key(line, field) > 1:
        detail = f"has several fields {field!r}"
        return Failure(url, "unreadable_row", detail, fix=_DISTINCT_NAMES)
    return _taking(source).row(url, row[field])


def _count_of_key(line: bytes, key: str) -> int:
    """Count how often the object in `line` has the key. Few lines need the second look."""
    spellings = {
        json.dumps(key).encode(),
        json.dumps(key, ensure_ascii=False).encode(),
    }
    if sum(map(line.count, spellings)) < 2:
        return 1
    pairs = json.loads(line, object_pairs_hook=list)
    names = [name for name, _ in pairs]
    return names.count(key)


def _read_csv(source: FilesSource, path: Path) -> Iterator[Item]:
    """Yield rows under a line of column names. Bytes that are not UTF-8 stay as they are."""
    taking = _taking(source)
    max_bytes = LINE_TIMES * source.limits.max_page_bytes
    csv.field_size_limit(max_bytes)
    with opened(path) as file:
        text_lines = _text_lines(file, max_bytes)
        table = csv.reader(text_lines, delimiter=_DELIMITERS[kind(path)])
        names = next(table, [])
        if names == [_END]:
            names = []
        column = _column(source, path, names)
        line = table.line_num
        for number, row in enumerate(table, 1):
            first_line = line + 1
            line = table.line_num
            if row == [_END]:
                return
            url = f"{path.as_uri()}#{number}"
            if row and row[-1].endswith(_END):
                detail = (
                    f"a quote that opens in the row at line {first_line:,} is not closed until the"
                    f" end of the file, {line - first_line:,} lines later"
                )
                yield Failure(url, "unreadable_row", detail, fix=_CLOSE_THE_QUOTE)
            elif len(row) > column:
                body = row[column].encode("utf-8", "surrogateescape")
                yield taking.row(url, body)
            elif row:
                detail = f"has {len(row)} fields, {source.text_field!r} is field {column + 1}"
                yield Failure(url, "unreadable_row", detail, fix=_ALL_FIELDS)


def _text_lines(file: Any, max_bytes: int) -> Iterator[str]:
    """Yield the lines, then `_END`: a reader inside a quote takes it into the last field."""
    for number, line in enumerate(lines(file, max_bytes), 1):
        if line is None:
            raise csv.Error(f"line {number} has more than {max_bytes:,} bytes")
        encoding = "utf-8-sig" if number == 1 else "utf-8"
        yield line.decode(encoding, "surrogateescape")
    yield _END


def _column(source: FilesSource, path: Path, names: list[str]) -> int:
    """Return which column holds the text.

    Raises:
        InputError: No column has the name of `text_field`, or several have it.
    """
    count = names.count(source.text_field)
    if count > 1:
        why = f"has {count} columns {source.text_field!r}"
        raise InputError(str(path), why, _DISTINCT_NAMES)
    if count == 0:
        raise _no_column(source, path, names)
    return names.index(source.text_field)


def _no_column(source: FilesSource, path: Path, names: list[str]) -> InputError:
    if not names:
        why = "is empty: it has no line of column names"
        return InputError(str(path), why, "leave it out of crawl.sources")
    if any("\0" in name for name in names):
        why = "is not UTF-8: its column names have null bytes, as those of UTF-16 have"
        return InputError(str(path), why, _UTF_8)
    fix = f"set text_field of crawl.sources {source.name} to one of: {listed(names)}"
    return InputError(str(path), f"has no column {source.text_field!r}", fix)


def _read_parquet(source: FilesSource, path: Path) -> Iterator[Item]:
    taking, bound = _taking(source), Bound(path)
    with _parquet(path) as file:
        _column(source, path, file.schema_arrow.names)
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
    """Yield batches with fewer rows where rows are long.

    The metadata about that may be false, so the memory of the process is bounded, too.
    """
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
    except (OSError, pa.ArrowException) as error:  # damaged pages
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
