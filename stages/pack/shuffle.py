"""Documents in the order of a hash, with bounded memory: rows are thrown into buckets by key, then each bucket is sorted.

A key is 63 bits of hash(seed, document, copy). Bucket b takes the b-th part of the keys, so the shards, one after the other,
are in the order of the keys however many there are. All parts of a document have one key and stay together.
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

MAX_BUCKETS = 512  # files open at once; beyond it buckets grow
OTHER_FILES = 256  # open beside them: libraries, pipes to workers
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


def scatter(
    batches: Iterable[pa.RecordBatch], count: int, table: str, draft: Draft
) -> list[Bucket]:
    """Write each row of `batches` (KEYED_ROWS) to the bucket of its key; gives the buckets."""
    folder = draft.scratch / table
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir(parents=True)
    _let_open(count + OTHER_FILES)
    buckets = [Bucket(folder / f"{n:05d}.arrow", table, n, draft) for n in range(count)]
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


def _let_open(files: int) -> None:
    """Raise the soft limit of open files, which macOS sets to 256; the number of buckets must not depend on the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files if hard == resource.RLIM_INFINITY else min(files, hard)
    if resource.RLIM_INFINITY != soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches of about SCATTER_BYTES: a write for every bucket costs as much for a row as for many."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(one.nbytes for one in waiting) >= SCATTER_BYTES:
            yield pa.concat_batches(waiting)
            waiting = []
    if waiting:
        yield pa.concat_batches(waiting)


def settle(bucket: Bucket) -> int:
    """Sort a bucket and write it as one shard of the draft; gives its rows. Holds the bucket twice in memory."""
    with pa.ipc.open_stream(pa.memory_map(str(bucket.path))) as stream:
        rows = stream.read_all()
    indices = pc.sort_indices(
        rows, [("key", "ascending"), ("document", "ascending"), ("part", "ascending")]
    )
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
