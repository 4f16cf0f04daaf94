"""Puts rows into the order of a hash, with bounded memory.

A key is 63 bits of hash(seed, document, copy). All parts of a document have one key and stay
together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts import Draft
from stages.text.bucket_sort import BucketWriter, bucket_in, pieces

ROW_GROUP_TOKENS = 4 << 20
KEYED_ROWS = pa.schema(
    [
        ("key", pa.uint64()),
        ("document", pa.string()),
        ("part", pa.int32()),
        ("tokens", pa.list_(pa.int32())),
        ("bytes", pa.int64()),
    ]
)
_ORDER = [("key", "ascending"), ("document", "ascending"), ("part", "ascending")]


def scatter(
    batches: Iterable[pa.RecordBatch],
    count: int,
    table: str,
    draft: Draft,
) -> None:
    """Write each row to the bucket of its key.

    Args:
        batches: Rows (KEYED_ROWS) in any order.
        count: Number of buckets.
        table: The table of the artifact that the rows belong to.
        draft: The draft of the artifact.
    """
    with BucketWriter(_folder(draft, table), count) as writer:
        for rows in pieces(batches):
            keys = rows.column("key").to_numpy()
            writer.write(rows, leading_bits(keys))


def _folder(draft: Draft, table: str) -> Path:
    """Return the folder of the buckets, on the machine that asks."""
    return draft.scratch / table


def leading_bits(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the upper 32 of the 63 bits of each key."""
    return keys >> np.uint64(31)


def write_shard(table: str, draft: Draft, number: int) -> int:
    """Sort a bucket and write it as one shard of a table of the draft.

    Needs memory for twice the bucket.

    Returns:
        The number of rows.
    """
    bucket = bucket_in(_folder(draft, table), number)
    schema = draft.contract.arrow_schema(table)
    with draft.writer(table, number) as writer:
        rows = bucket.read()
        if rows is None:
            return 0
        order = pc.sort_indices(rows, _ORDER)
        in_order = rows.drop_columns("key").take(order)
        for piece in _row_groups(in_order):
            writer.write(piece.cast(schema))
    bucket.discard()
    return rows.num_rows


def _row_groups(rows: pa.Table) -> Iterator[pa.Table]:
    """Yield groups of consecutive rows with at most ROW_GROUP_TOKENS, at least one row each."""
    sizes = pc.list_value_length(rows.column("tokens")).to_numpy()
    ends = np.cumsum(sizes, dtype=np.int64)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        most = before + ROW_GROUP_TOKENS
        fitting = int(np.searchsorted(ends, most, side="right"))
        stop = max(fitting, start + 1)
        yield rows.slice(start, stop - start)
        start = stop
