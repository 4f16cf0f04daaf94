"""Rows of the user's own JSONL and Parquet files, one at a time, each with its number.

Any file may come from a stranger. So a row of JSON has a maximum length, and Parquet, which may
unpack to any size, is read in a separate process. A row of JSON that gives a key twice is refused:
nobody knows which of the values was meant, and programs differ in which one they take.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from os.path import expanduser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts import InputError
from data_contracts.foreign_text import brief
from data_contracts.regular_files import check_regular, open_regular
from stages.execution.apart import rows_apart
from stages.file_digests import repair_of

Row = tuple[int, Any, str | None]  # number from 1, value, what is wrong with the row itself

LONGEST = 4 << 20  # bytes of a row of JSON; parsed, it takes up to twenty times that
MAX_DENSE_ROWS = 1_000_000  # a Parquet file with more rows may not have more rows than bytes
_BATCH_ROWS, _BATCH_BYTES = 256, 1 << 20


def read_rows(path: str) -> Iterator[Row]:
    """Yield the rows of a JSONL or Parquet file, without empty lines.

    Returns:
        For each row its number from 1, its value, and what is wrong with it, if anything.

    Raises:
        InputError: The file cannot be read, is of another kind or takes too much memory.
    """
    # Path.expanduser raises for an unknown ~name; this leaves it, to be reported as missing.
    file = Path(expanduser(path))
    try:
        check_regular(file)
        if file.suffix == ".parquet":
            rows = rows_apart(_parquet, path, file, what=lambda: f"file {path}")
            yield from (row for row in rows if row is not None)
        elif file.suffix in (".jsonl", ".ndjson"):
            yield from _jsonl(file)
        else:
            raise InputError(
                f"file {path}",
                f"is neither .jsonl nor .parquet but {file.suffix or 'without suffix'}",
                "convert or rename it",
            )
    except OSError as error:
        raise _unreadable(path, error) from None


def row_address(path: str, row: int) -> str:
    """Return the address of a row: file:///path/to/file#12."""
    return f"{Path(expanduser(path)).absolute().as_uri()}#{row}"


def _unreadable(path: str, error: Exception) -> InputError:
    fix = "replace the file"
    if isinstance(error, OSError):
        fix = repair_of(error)
    return InputError(f"file {path}", f"cannot be read: {error}", f"{fix}, or correct the path")


def _jsonl(file: Path) -> Iterator[Row]:
    number = 0
    with open_regular(file) as lines:
        while line := lines.readline(LONGEST + 1):
            number += 1
            if len(line) > LONGEST:
                start = _start(line)
                while line and not line.endswith(b"\n"):
                    line = lines.readline(LONGEST)
                yield number, start, f"longer than {LONGEST:,} bytes"
            elif line.strip():
                yield _of_line(number, line)


def _of_line(number: int, line: bytes) -> Row:
    text_format = "utf-8-sig" if number == 1 else "utf-8"
    try:
        value = json.loads(line.decode(text_format), object_pairs_hook=_with_each_key_once)
        # Half of a surrogate pair cannot be encoded, and so not be stored.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except _DuplicateKeyError as error:
        return number, _start(line), f"ambiguous: {error}"
    except UnicodeEncodeError:
        problem = "holds half of a character: one of \\ud800 to \\udfff without its other half"
        return number, _start(line), problem
    except (ValueError, RecursionError) as error:  # ValueError: also a number of too many digits
        return number, _start(line), f"not JSON: {error}"
    return number, value, None


class _DuplicateKeyError(ValueError):
    """An object of JSON gives a key twice."""


def _with_each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    known = set()
    for key, _ in pairs:
        if key in known:
            raise _DuplicateKeyError(f"the key {brief(key)} is given twice")
        known.add(key)
    return value


def _start(line: bytes) -> str:
    return line[:1000].decode("utf-8", "replace")


def _parquet(path: str, file: Path) -> Iterator[Row | None]:
    """Yield rows, and None after many bytes of them. Runs in a separate process."""
    number = 0
    max_rows = max(MAX_DENSE_ROWS, file.stat().st_size)
    try:
        with pq.ParquetFile(file) as table:
            if table.metadata.num_rows > max_rows:
                raise _too_many_rows(path, table.metadata.num_rows, file)
            for batch in table.iter_batches(_fitting(table), use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    if number > max_rows:  # the metadata may state fewer rows than there are
                        raise _too_many_rows(path, number, file)
                    yield number, row, None
                if batch.nbytes > _BATCH_BYTES:
                    yield None
    except MemoryError:  # Arrow's own is an ArrowException, too
        raise MemoryError from None
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None


def _too_many_rows(path: str, rows: int, file: Path) -> InputError:
    size = file.stat().st_size
    return InputError(
        f"file {path}",
        f"holds {rows:,} or more rows in {size:,} bytes; rows with text take more than a byte each,"
        " so these are empty or all the same",
        "replace the file, or leave it out",
    )


def _fitting(table: pq.ParquetFile) -> int:
    """Return how many rows have about a megabyte, if the metadata states their true length."""
    groups = [table.metadata.row_group(number) for number in range(table.num_row_groups)]
    longest = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=1)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(longest, 1)))
