"""The second pass: writes every document into its table, sorted by id.

The same documents therefore give the same files. Ids are hashes, so a range of ids is a fair share
of the documents: each bucket of the sort becomes one shard of each table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts import Artifact, Draft
from stages.text.bucket_sort import BucketWriter, bucket_in, pieces

BUCKET_BYTES = 128 << 20  # of text: what one worker sorts in memory
BATCH_ROWS = 1024
TABLES = ("train", "heldout", "rejects")
COLUMNS = ("id", "url", "source", "title", "text", "language", "license")

# From texts and the number of the first of them to the texts to write.
Cut = Callable[[pa.ChunkedArray, int], pa.Array]


def bucket_writer(out: Draft, count: int) -> BucketWriter:
    """Return the writer of `count` buckets in the scratch folder of a draft."""
    return BucketWriter(_folder(out), count, compression="lz4")


def _folder(out: Draft) -> Path:
    """Return the folder of the buckets, on the machine that asks."""
    return out.scratch / "by_id"


def scatter(
    documents: Artifact, verdicts: pa.Table, cut: Cut, writer: BucketWriter
) -> Iterator[int]:
    """Write the rows of clean_documents with their verdicts into buckets.

    Args:
        documents: The artifact clean_documents.
        verdicts: One row per document, in the order of the artifact, with the columns table,
            cluster, cluster_size, reason and similarity.
        cut: Removes repeated paragraphs.
        writer: Receives the rows.

    Yields:
        The number of rows written so far.
    """
    done = 0
    text_column = COLUMNS.index("text")
    batches = documents.batches("documents", COLUMNS, batch_size=BATCH_ROWS)
    for rows in pieces(batches):
        texts = cut(rows.column("text"), done)
        rows = rows.set_column(text_column, "text", texts)
        verdicts_of_rows = verdicts.slice(done, len(rows))
        for name in verdicts.schema.names:
            rows = rows.append_column(name, verdicts_of_rows.column(name))
        writer.write(rows, _leading_bits(rows.column("id")))
        done += len(rows)
        yield done


def _leading_bits(ids: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Return the first 32 bits of each id."""
    bits = [int(digits[:8], 16) for digits in ids.to_pylist()]
    return np.array(bits, np.uint64)


def write_bucket(out: Draft, number: int) -> None:
    """Sort one bucket by id and write its shard of each table.

    Needs memory for twice the bucket.

    Args:
        out: The draft of the artifact.
        number: The number of the bucket.
    """
    bucket = bucket_in(_folder(out), number)
    rows = bucket.read()
    if rows is not None:
        rows = rows.combine_chunks()
    for table in TABLES:
        _write_shard(out, table, bucket.number, rows)
    bucket.discard()


def _write_shard(out: Draft, table: str, shard: int, rows: pa.Table | None) -> None:
    """Write those of `rows` that belong to a table. Without rows, the shard is empty."""
    schema = out.contract.arrow_schema(table)
    with out.writer(table, shard) as writer:
        if rows is None:
            return
        of_table = np.flatnonzero(pc.equal(rows.column("table"), table))
        ids = rows.column("id").take(of_table)
        indices = of_table[pc.sort_indices(ids)]
        columns = rows.select(schema.names)
        for start in range(0, len(indices), BATCH_ROWS):
            batch = columns.take(indices[start : start + BATCH_ROWS])
            writer.write(batch)
