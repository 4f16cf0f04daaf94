"""Rows of the user's own JSONL and Parquet files, one at a time, each with its number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from os.path import expanduser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts import InputError


def read_rows(path: str) -> Iterator[tuple[int, Any, str | None]]:
    """(row from 1, its value, what is wrong with the row itself, if anything); empty lines of a JSONL file are passed over.

    Raises InputError if the file cannot be read at all or is of another kind.
    """
    file = Path(expanduser(path))  # unlike Path's own, leaves an unknown ~name to be told as missing
    try:
        if file.suffix == ".parquet":
            yield from _parquet(file)
        elif file.suffix in (".jsonl", ".ndjson"):
            yield from _jsonl(file)
        else:
            raise InputError(
                f"file {path}", f"is neither .jsonl nor .parquet but {file.suffix or 'without suffix'}", "convert or rename it"
            )
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"file {path}", f"cannot be read: {error}", "correct the path or the file") from None


def row_address(path: str, row: int) -> str:
    """file:///… #row"""
    return f"{Path(expanduser(path)).absolute().as_uri()}#{row}"


def _jsonl(file: Path) -> Iterator[tuple[int, Any, str | None]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8")), None
            except (ValueError, RecursionError) as error:  # also a number of too many digits
                yield number, line.decode("utf-8", "replace")[:1000], f"not JSON: {error}"


def _parquet(file: Path) -> Iterator[tuple[int, Any, str | None]]:
    number = 0
    with pq.ParquetFile(file) as table:
        for batch in table.iter_batches(1024):
            for row in batch.to_pylist():
                number += 1
                yield number, row, None
