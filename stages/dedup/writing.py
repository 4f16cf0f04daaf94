"""The second pass: writes every document into its table, sorted by id.

The same documents therefore give the same files. Ids are hashes, so a range of ids is a fair share
of the documents: rows are scattered to one scratch file per range, and each range is then sorted in
memory and becomes one shard of each table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts import Artifact, Draft

RANGE_BYTES = 128 << 20  # of text: what one worker sorts in memory
MAX_RANGES = 512  # files open at once; with more text, ranges grow
PIECE_BYTES = 32 << 20  # of rows scattered at once, so that each write to a range is large enough
TABLES = ("train", "heldout", "rejects")
COLUMNS = ("id", "url", "source", "title", "text", "language", "license")


@dataclass(frozen=True)
class IdRange:
    """Documents with ids in one range, in a scratch file of the draft."""

    number: int
    out: Draft

    @property
    def path(self) -> Path:
        """The scratch file, on the machine that asks."""
        return scratch_path(self.out, self.number)


def ranges_for(text_bytes: int) -> int:
    """Returns the number of ranges for so much text."""
    needed = -(-text_bytes // RANGE_BYTES)  # rounded up
    return min(max(1, needed), MAX_RANGES)


def scatter(
    documents: Artifact,
    verdicts: pa.Table,
    cut: Callable[[pa.ChunkedArray, int], pa.Array],
    count: int,
    out: Draft,
) -> Iterator[int]:
    """Writes the rows of clean_documents with their verdicts into `count` scratch files.

    Args:
        documents: The artifact clean_documents.
        verdicts: One row per document, in the order of the artifact, with the columns table,
            cluster, cluster_size, reason and similarity.
        cut: From texts and the number of the first of them to the texts to write.
        count: Number of ranges.
        out: The draft of the artifact.

    Yields:
        The number of rows written so far.
    """
    done = 0
    text_column = COLUMNS.index("text")
    with ExitStack() as stack:
        writers = _RangeWriters(stack, out)
        for rows in _pieces(documents.batches("documents", COLUMNS, batch_size=1024)):
            rows = rows.set_column(text_column, "text", cut(rows.column("text"), done))
            for name in verdicts.schema.names:
                rows = rows.append_column(name, verdicts.column(name).slice(done, len(rows)))
            writers.write(rows, _range_numbers(rows.column("id"), count))
            done += len(rows)
            yield done


class _RangeWriters:
    """Scratch files of ranges, opened when their first row arrives.

    They are Arrow streams, because those keep nothing in memory of what was written, unlike Parquet
    files.
    """

    def __init__(self, stack: ExitStack, out: Draft):
        self._stack = stack
        self._out = out
        self._writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}

    def write(self, rows: pa.Table, numbers: np.ndarray) -> None:
        """Writes each row into the file of its range."""
        by_range = rows.take(np.argsort(numbers, kind="stable"))
        present, starts = np.unique(np.sort(numbers), return_index=True)
        stops = [*starts[1:], len(rows)]
        for number, start, stop in zip(present.tolist(), starts, stops, strict=True):
            writer = self._writer(number, rows.schema)
            writer.write_table(by_range.slice(start, stop - start))

    def _writer(self, number: int, schema: pa.Schema) -> pa.ipc.RecordBatchStreamWriter:
        if number not in self._writers:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            path = str(scratch_path(self._out, number))
            writer = pa.ipc.new_stream(path, schema, options=options)
            self._writers[number] = self._stack.enter_context(writer)
        return self._writers[number]


def _range_numbers(ids: pa.ChunkedArray, count: int) -> np.ndarray:
    """The range of each id, in proportion to its first 32 bits."""
    first_bits = [int(digits[:8], 16) for digits in ids.to_pylist()]
    return (np.array(first_bits, np.uint64) * np.uint64(count)) >> np.uint64(32)


def _pieces(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows of `batches`, about PIECE_BYTES at a time."""
    waiting: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        waiting.append(batch)
        size += batch.nbytes
        if size >= PIECE_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting = []
            size = 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def scratch_path(out: Draft, number: int) -> Path:
    """Returns the path of the scratch file of a range."""
    return out.scratch / f"range-{number:05d}.arrow"


def write_range(part: IdRange) -> None:
    """Sorts one range by id and writes its shard of each table.

    Needs memory for twice the range.
    """
    rows = _read_rows(part.path)
    for table in TABLES:
        schema = part.out.contract.arrow_schema(table)
        with part.out.writer(table, part.number) as writer:
            if rows is None:
                continue
            of_table = np.flatnonzero(pc.equal(rows.column("table"), table))
            by_id = pc.sort_indices(rows.column("id").take(of_table))
            indices = of_table[by_id]
            for start in range(0, len(indices), 1024):
                batch = rows.select(schema.names).take(indices[start : start + 1024])
                writer.write(batch)
    part.path.unlink(missing_ok=True)


def _read_rows(path: Path) -> pa.Table | None:
    """The rows of a scratch file; None if no row came into the range."""
    if not path.exists():
        return None
    return pa.ipc.open_stream(str(path)).read_all().combine_chunks()
