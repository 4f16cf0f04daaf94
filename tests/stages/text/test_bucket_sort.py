"""A bucket sort puts rows into the order of their keys, whatever the number of buckets."""

from __future__ import annotations

import resource
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.text import bucket_sort
from stages.text.bucket_sort import BucketWriter, bucket_count, bucket_numbers, pieces

LARGEST = 2**32 - 1
KEYS = st.lists(st.integers(0, LARGEST), max_size=60)


def rows_of(keys: list[int]) -> pa.Table:
    return pa.table({"key": pa.array(keys, pa.uint64())})


def written(folder: Path, keys: list[int], count: int, at_once: int = 7) -> list[pa.Table | None]:
    """What each of `count` buckets holds after rows with these keys were written."""
    with BucketWriter(folder, count) as writer:
        for start in range(0, len(keys), at_once):
            part = keys[start : start + at_once]
            writer.write(rows_of(part), np.array(part, np.uint64))
    return [bucket.read() for bucket in writer.buckets]


def keys_of(rows: pa.Table | None) -> list[int]:
    return [] if rows is None else rows.column("key").to_pylist()


def test_every_key_falls_into_a_bucket_and_buckets_keep_the_order() -> None:
    keys = np.array([0, 1, 2**10, 2**31, LARGEST], np.uint64)
    for count in (1, 3, 512):
        numbers = bucket_numbers(keys, count).tolist()
        assert numbers == sorted(numbers)
        assert numbers[0] == 0
        assert numbers[-1] == count - 1


@settings(max_examples=30, deadline=None)
@given(KEYS, st.sampled_from([1, 2, 5, 64]))
def test_buckets_hold_every_row_once_and_follow_each_other(
    tmp_path_factory: pytest.TempPathFactory, keys: list[int], count: int
) -> None:
    buckets = written(tmp_path_factory.mktemp("sort") / "rows", keys, count)
    in_order = []
    for rows in buckets:
        in_order += sorted(keys_of(rows))
    assert in_order == sorted(keys)


def test_rows_of_a_bucket_are_in_order_of_arrival(tmp_path: Path) -> None:
    keys = [5, 3, 9, 3, 1, 8, 2, 2]
    (rows,) = written(tmp_path / "rows", keys, 1, at_once=3)
    assert keys_of(rows) == keys


def test_a_bucket_without_rows_has_no_file_and_reads_as_none(tmp_path: Path) -> None:
    lower, upper = written(tmp_path / "rows", [LARGEST], 2)
    assert lower is None
    assert keys_of(upper) == [LARGEST]


def test_no_rows_can_be_written(tmp_path: Path) -> None:
    with BucketWriter(tmp_path / "rows", 2) as writer:
        writer.write(rows_of([]), np.array([], np.uint64))
    assert [bucket.read() for bucket in writer.buckets] == [None, None]


def test_what_a_killed_run_left_is_not_read(tmp_path: Path) -> None:
    written(tmp_path / "rows", [1, 2, 3], 4)
    assert written(tmp_path / "rows", [], 4) == [None] * 4


def test_compressed_buckets_hold_the_same_rows(tmp_path: Path) -> None:
    keys = list(range(0, LARGEST, 2**26))
    with BucketWriter(tmp_path / "rows", 3, compression="lz4") as writer:
        writer.write(rows_of(keys), np.array(keys, np.uint64))
    found = []
    for bucket in writer.buckets:
        found += keys_of(bucket.read())
    assert found == keys


def test_small_batches_are_written_in_one_piece(tmp_path: Path) -> None:
    batches = [batch for key in (3, 0, 2) for batch in rows_of([key]).to_batches()]
    (piece,) = pieces(batches)
    with BucketWriter(tmp_path / "rows", 1) as writer:
        writer.write(piece, piece.column("key").to_numpy())
    with pa.ipc.open_stream(str(writer.buckets[0].path)) as stream:
        assert len(list(stream)) == 1


def test_pieces_end_when_they_are_large_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_sort, "PIECE_BYTES", 16)
    batches = [batch for key in range(5) for batch in rows_of([key]).to_batches()]
    assert [keys_of(piece) for piece in pieces(batches)] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(("total", "expected"), [(0, 1), (10, 1), (11, 2), (10**9, 512)])
def test_there_are_enough_buckets_but_not_too_many(total: int, expected: int) -> None:
    assert bucket_count(total, 10) == expected


def test_all_buckets_can_be_open_where_the_soft_limit_is_256_files(tmp_path: Path) -> None:
    count = bucket_sort.MAX_BUCKETS
    keys = [number * (2**32 // count) for number in range(count)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        buckets = written(tmp_path / "rows", keys, count, at_once=count)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    found = [keys_of(rows) for rows in buckets]
    assert all(len(one) == 1 for one in found)
    assert all(before < after for before, after in pairwise(found))
