"""Documents in the order of a hash, with bounded memory: rows are thrown into buckets by key, then each bucket is sorted.

A key is 63 bits of hash(seed, document, copy). Bucket b takes the b-th part of the keys, so the shards, one after the other,
are in the order of the keys however many there are. All parts of a document have one key and stay together.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts import Draft

MAX_BUCKETS = 512  # files open at once; beyond it buckets grow
ROW_GROUP_TOKENS = 4 << 20
KEYED_ROWS = pa.schema(
    [("key", pa.uint64()), ("document", pa.string()), ("part", pa.int32()), ("tokens", pa.list_(pa.int32())), ("bytes", pa.int64())]
)


@dataclass(frozen=True)
class Bucket:
    """One shard to be: rows under `path`, still in order of arrival."""

    path: Path
    table: str
    number: int
    draft: Draft


def bucket_count(text_bytes: int, shard_bytes: int) -> int:
    return min(max(-(-text_bytes // shard_bytes), 1), MAX_BUCKETS)


def bucket_of(keys: np.ndarray, count: int) -> np.ndarray:
    """Number of the bucket of each key, in proportion; the upper 32 of a key's 63 bits decide."""
    return ((keys >> np.uint64(31)) * np.uint64(count)) >> np.uint64(32)


def scatter(batches: Iterable[pa.RecordBatch], count: int, table: str, draft: Draft) -> list[Bucket]:
    """Write each row of `batches` (KEYED_ROWS) to the bucket of its key; gives the buckets."""
    folder = draft.scratch / table
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir(parents=True)
    buckets = [Bucket(folder / f"{n:05d}.arrow", table, n, draft) for n in range(count)]
    writers = [pa.ipc.new_stream(str(bucket.path), KEYED_ROWS) for bucket in buckets]
    try:
        for batch in batches:
            numbers = bucket_of(batch.column("key").to_numpy(), count)
            for number in np.unique(numbers):
                writers[int(number)].write_batch(batch.take(np.flatnonzero(numbers == number)))
    finally:
        for writer in writers:
            writer.close()
    return buckets


def settle(bucket: Bucket) -> int:
    """Sort a bucket and write it as one shard of the draft; gives its rows. Holds the bucket twice in memory."""
    with pa.ipc.open_stream(pa.memory_map(str(bucket.path))) as stream:
        rows = stream.read_all()
    indices = pc.sort_indices(rows, [("key", "ascending"), ("document", "ascending"), ("part", "ascending")])
    schema = bucket.draft.contract.arrow_schema(bucket.table)
    with bucket.draft.writer(bucket.table, bucket.number) as writer:
        for piece in _row_groups(rows.drop_columns("key").take(indices)):
            writer.write(piece.cast(schema))
    bucket.path.unlink()
    return rows.num_rows


def _row_groups(rows: pa.Table) -> Iterator[pa.Table]:
    sizes = pc.list_value_length(rows.column("tokens")).to_numpy()
    ends = np.cumsum(sizes, dtype=np.int64)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + ROW_GROUP_TOKENS, side="right")), start + 1)
        yield rows.slice(start, stop - start)
        start = stop
