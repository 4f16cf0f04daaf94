"""Puts documents into the order of a hash, with bounded memory.

Rows are scattered to buckets by key, then each bucket is sorted. A key is 63 bits of hash(seed,
document, copy). Bucket b takes the b-th range of keys, so the shards, one after the other, are in
the order of the keys, regardless of their number. All parts of a document have one key and stay
together.
"""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts import Draft

MAX_BUCKETS = 512  # files open at once; with more text, buckets grow
OTHER_FILES = 256  # open at the same time: libraries, pipes to workers
SCATTER_BYTES = 32 << 20
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


@dataclass(frozen=True)
class ShuffleBucket:
    """The rows of a future shard, in order of arrival, in a scratch file of the draft."""

    table: str
    number: int
    draft: Draft

    @property
    def path(self) -> Path:
        """The scratch file, on the machine that asks."""
        return self.draft.scratch / self.table / f"{self.number:05d}.arrow"


def bucket_count(text_bytes: int, shard_bytes: int) -> int:
    """Returns the number of buckets for so much text."""
    needed = -(-text_bytes // shard_bytes)  # rounded up
    return min(max(needed, 1), MAX_BUCKETS)


def bucket_of(keys: np.ndarray, count: int) -> np.ndarray:
    """Returns the bucket of each key, in proportion to the upper 32 of its 63 bits."""
    return ((keys >> np.uint64(31)) * np.uint64(count)) >> np.uint64(32)


def scatter(
    batches: Iterable[pa.RecordBatch], count: int, table: str, draft: Draft
) -> list[ShuffleBucket]:
    """Writes each row of `batches` (KEYED_ROWS) to the bucket of its key.

    Args:
        batches: Rows in any order.
        count: Number of buckets.
        table: The table of the artifact that the buckets belong to.
        draft: The draft of the artifact.
    """
    folder = draft.scratch / table
    shutil.rmtree(folder, ignore_errors=True)  # left by a run that was killed
    folder.mkdir(parents=True)
    _allow_open_files(count + OTHER_FILES)
    buckets = [ShuffleBucket(table, number, draft) for number in range(count)]
    writers = [pa.ipc.new_stream(str(bucket.path), KEYED_ROWS) for bucket in buckets]
    try:
        for rows in _gathered(batches):
            numbers = bucket_of(rows.column("key").to_numpy(), count)
            order = np.argsort(numbers)
            ends = np.searchsorted(numbers[order], np.arange(count + 1))
            rows = rows.take(order)
            for writer, (start, stop) in zip(writers, pairwise(ends.tolist()), strict=True):
                if start < stop:
                    writer.write_batch(rows.slice(start, stop - start))
    finally:
        for writer in writers:
            writer.close()
    return buckets


def _allow_open_files(count: int) -> None:
    """Raises the soft limit of open files, which is 256 on macOS.

    The number of buckets must not depend on the machine.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches of about SCATTER_BYTES.

    A write to every bucket costs as much for one row as for many.
    """
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(one.nbytes for one in waiting) >= SCATTER_BYTES:
            yield pa.concat_batches(waiting)
            waiting = []
    if waiting:
        yield pa.concat_batches(waiting)


def write_shard(bucket: ShuffleBucket) -> int:
    """Sorts a bucket and writes it as one shard of the draft.

    Needs memory for twice the bucket.

    Returns:
        The number of rows.
    """
    with pa.ipc.open_stream(pa.memory_map(str(bucket.path))) as stream:
        rows = stream.read_all()
    order = [(column, "ascending") for column in ("key", "document", "part")]
    indices = pc.sort_indices(rows, order)
    schema = bucket.draft.contract.arrow_schema(bucket.table)
    with bucket.draft.writer(bucket.table, bucket.number) as writer:
        for piece in _row_groups(rows.drop_columns("key").take(indices)):
            writer.write(piece.cast(schema))
    bucket.path.unlink()
    return rows.num_rows


def _row_groups(rows: pa.Table) -> Iterator[pa.Table]:
    """Consecutive rows of at most ROW_GROUP_TOKENS, at least one row each."""
    sizes = pc.list_value_length(rows.column("tokens")).to_numpy()
    ends = np.cumsum(sizes, dtype=np.int64)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        fitting = int(np.searchsorted(ends, before + ROW_GROUP_TOKENS, side="right"))
        stop = max(fitting, start + 1)
        yield rows.slice(start, stop - start)
        start = stop
