"""A bucket sort: rows into the order of their keys, with bounded memory.

Rows are scattered to scratch files, one for each range of keys. Then each file is read whole,
sorted and written as one shard. The shards, one after the other, are in the order of the keys,
whatever their number. Keys are hashes, so every range gets a fair share of the rows.
"""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

MAX_BUCKETS = 512  # files open at once; with more rows, buckets grow
OTHER_FILES = 256  # open at the same time: libraries, pipes to workers
PIECE_BYTES = 32 << 20  # of rows scattered at once, so that each write to a bucket is large enough


@dataclass(frozen=True)
class SortBucket:
    """Rows with keys in one range, in a scratch file, in order of arrival."""

    number: int
    path: Path

    def read(self) -> pa.Table | None:
        """Return the rows; None if no row came into the range."""
        if not self.path.exists():
            return None
        with pa.ipc.open_stream(pa.memory_map(str(self.path))) as stream:
            return stream.read_all()

    def discard(self) -> None:
        """Remove the scratch file."""
        self.path.unlink(missing_ok=True)


def bucket_in(folder: Path, number: int) -> SortBucket:
    """Return a bucket whose scratch file lies in `folder`."""
    return SortBucket(number, folder / f"{number:05d}.arrow")


def bucket_count(total_bytes: int, bucket_bytes: int) -> int:
    """Return the number of buckets for `total_bytes`, one at least and `MAX_BUCKETS` at most."""
    needed = -(-total_bytes // bucket_bytes)  # rounded up
    return min(max(needed, 1), MAX_BUCKETS)


def bucket_numbers(keys: npt.NDArray[np.uint64], count: int) -> npt.NDArray[np.uint16]:
    """Return the bucket of each key, in proportion to the key.

    Args:
        keys: The leading 32 bits of each key, shape [rows].
        count: Number of buckets.
    """
    return ((keys * np.uint64(count)) >> np.uint64(32)).astype(np.uint16)


def pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield the rows of `batches`, about `PIECE_BYTES` at a time.

    A write to every bucket costs as much for one row as for many.
    """
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


class BucketWriter:
    """A writer that scatters rows to buckets. Use it as a context manager.

    A scratch file is opened when its first row arrives. The files are Arrow streams: unlike Parquet
    files, those keep nothing in memory of what was written.

    Args:
        folder: Folder of the scratch files. What a killed run left there is removed.
        count: Number of buckets.
        compression: Codec of Arrow's IPC format, or None.
    """

    def __init__(self, folder: Path, count: int, compression: str | None = None):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _allow_open_files(count + OTHER_FILES)
        self.buckets = [bucket_in(folder, number) for number in range(count)]
        self._options = pa.ipc.IpcWriteOptions(compression=compression)
        self._writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def write(self, rows: pa.Table, keys: npt.NDArray[np.uint64]) -> None:
        """Write each row to the bucket of its key.

        Args:
            rows: Rows of one schema, the same at every call.
            keys: The leading 32 bits of the key of each row, shape [rows].
        """
        if not len(rows):
            return
        numbers = bucket_numbers(keys, len(self.buckets))
        order = np.argsort(numbers, kind="stable")
        by_bucket = rows.combine_chunks().take(order)
        present, starts = np.unique(numbers[order], return_index=True)
        stops = [*starts[1:], len(rows)]
        for number, start, stop in zip(present.tolist(), starts, stops, strict=True):
            writer = self._writer(number, rows.schema)
            writer.write_table(by_bucket.slice(start, stop - start))

    def _writer(self, number: int, schema: pa.Schema) -> pa.ipc.RecordBatchStreamWriter:
        if number not in self._writers:
            path = str(self.buckets[number].path)
            writer = pa.ipc.new_stream(path, schema, options=self._options)
            self._writers[number] = self._stack.enter_context(writer)
        return self._writers[number]


def _allow_open_files(count: int) -> None:
    """Raise the soft limit of open files, which is 256 on macOS.

    The number of buckets must not depend on the machine.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
