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
import pyarrow.parquet as pq

from data_contracts import Artifact, Draft

RANGE_BYTES = 128 << 20  # of text: what one worker sorts in memory
MAX_RANGES = 512  # files open at once
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
    documents: Artifact, verdicts: pa.Table, cut: Callable[[pa.ChunkedArray, int], pa.Array], count: int, out: Draft
) -> Iterator[int]:
    """Rows of clean_documents with their verdicts into `count` scratch files; gives the rows done so far.

    verdicts: one row per document in the order of the artifact, with the columns table, cluster, cluster_size, reason, similarity.
    cut: texts, number of the first → the texts as they are to be written.
    """
    done, text = 0, COLUMNS.index("text")
    with ExitStack() as stack:
        writers: dict[int, pq.ParquetWriter] = {}
        for batch in documents.batches("documents", COLUMNS, batch_size=1024):
            rows = pa.Table.from_batches([batch])
            rows = rows.set_column(text, "text", cut(rows.column("text"), done))
            for name in verdicts.schema.names:
                rows = rows.append_column(name, verdicts.column(name).slice(done, len(rows)))
            first_bytes = np.array([int(digits[:8], 16) for digits in rows.column("id").to_pylist()], np.uint64)
            numbers = (first_bytes * np.uint64(count)) >> np.uint64(32)
            for number in np.unique(numbers).tolist():
                if number not in writers:
                    writer = pq.ParquetWriter(scratch_path(out, number), rows.schema, compression="zstd", compression_level=1)
                    writers[number] = stack.enter_context(writer)
                writers[number].write_table(rows.filter(pa.array(numbers == number)))
            done += len(rows)
            yield done


def scratch_path(out: Draft, number: int) -> Path:
    return out.scratch / f"range-{number:05d}.parquet"


def settle(part: Range) -> None:
    """Sort one range by id and write its shard of each table."""
    rows = pq.read_table(part.path) if part.path.exists() else None
    for table in TABLES:
        schema = part.out.contract.arrow_schema(table)
        with part.out.writer(table, part.number) as writer:
            if rows is not None:
                mine = rows.filter(pc.equal(rows.column("table"), table)).sort_by("id").select(schema.names)
                for start in range(0, len(mine), 1024):
                    writer.write(mine.slice(start, 1024).combine_chunks())
    part.path.unlink(missing_ok=True)
