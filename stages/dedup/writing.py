"""The second pass: every document into its table, sorted by id, so that the same documents give the same files.

Ids are hashes, so a range of ids is a fair part of the documents: rows are scattered to one scratch file per range, and each
range is then sorted in memory and becomes one shard of each table.
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
MAX_RANGES = 512  # files open at once; beyond it ranges grow
PIECE_BYTES = 32 << 20  # of rows, scattered at once: so what a range gets is worth writing
TABLES = ("train", "heldout", "rejects")
COLUMNS = ("id", "url", "source", "title", "text", "language", "license")


@dataclass(frozen=True)
class Range:
    """Documents with ids in one range, in a scratch file."""

    number: int
    path: Path
    out: Draft


def ranges_for(text_bytes: int) -> int:
    return min(max(1, -(-text_bytes // RANGE_BYTES)), MAX_RANGES)


def scatter(
    documents: Artifact,
    verdicts: pa.Table,
    cut: Callable[[pa.ChunkedArray, int], pa.Array],
    count: int,
    out: Draft,
) -> Iterator[int]:
    """Rows of clean_documents with their verdicts into `count` scratch files; gives the rows done so far.

    verdicts: one row per document in the order of the artifact, with the columns table, cluster, cluster_size, reason, similarity.
    cut: texts, number of the first → the texts as they are to be written.
    """
    done, text = 0, COLUMNS.index("text")
    with ExitStack() as stack:
        writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
        for rows in _pieces(documents.batches("documents", COLUMNS, batch_size=1024)):
            rows = rows.set_column(text, "text", cut(rows.column("text"), done))
            for name in verdicts.schema.names:
                rows = rows.append_column(name, verdicts.column(name).slice(done, len(rows)))
            first_bytes = np.array(
                [int(digits[:8], 16) for digits in rows.column("id").to_pylist()], np.uint64
            )
            numbers = (first_bytes * np.uint64(count)) >> np.uint64(32)
            by_range = rows.take(np.argsort(numbers, kind="stable"))
            here, starts = np.unique(np.sort(numbers), return_index=True)
            for number, start, stop in zip(
                here.tolist(), starts, [*starts[1:], len(rows)], strict=True
            ):
                if (
                    number not in writers
                ):  # a stream: unlike a Parquet file it keeps nothing in memory of what was written
                    options = pa.ipc.IpcWriteOptions(compression="lz4")
                    writer = pa.ipc.new_stream(
                        str(scratch_path(out, number)), rows.schema, options=options
                    )
                    writers[number] = stack.enter_context(writer)
                writers[number].write_table(by_range.slice(start, stop - start))
            done += len(rows)
            yield done


def _pieces(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows of `batches`, about PIECE_BYTES at a time."""
    waiting, size = list[pa.RecordBatch](), 0
    for batch in batches:
        waiting.append(batch)
        size += batch.nbytes
        if size >= PIECE_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def scratch_path(out: Draft, number: int) -> Path:
    return out.scratch / f"range-{number:05d}.arrow"


def settle(part: Range) -> None:
    """Sort one range by id and write its shard of each table. Holds the range twice in memory."""
    rows = (
        pa.ipc.open_stream(str(part.path)).read_all().combine_chunks()
        if part.path.exists()
        else None
    )
    for table in TABLES:
        schema = part.out.contract.arrow_schema(table)
        with part.out.writer(table, part.number) as writer:
            if rows is not None:
                mine = np.flatnonzero(pc.equal(rows.column("table"), table))
                mine = mine[pc.sort_indices(rows.column("id").take(mine))]
                for start in range(0, len(mine), 1024):
                    writer.write(rows.select(schema.names).take(mine[start : start + 1024]))
    part.path.unlink(missing_ok=True)
