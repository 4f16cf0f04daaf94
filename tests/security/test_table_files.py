"""Tables of strangers: rows without end in a few kilobytes, damaged footers, and whose fault it is."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts import InputError
from stages.crawl import formats
from stages.crawl.config import FilesSource
from stages.user_files import read_rows
from tests.security.crawled import crawled
from tests.security.fuzzing import refusal

ROWS = 200_000_000


def read(run, path, **settings):
    source = {"kind": "files", "name": "mine", "paths": [str(path)]}
    return run("crawl", {"sources": [source | settings]})


def nulls(path, rows):
    pq.write_table(pa.table({"text": pa.nulls(rows)}), path, compression="zstd")


def test_a_file_of_unusable_rows_is_one_error_that_says_how_many_and_why(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(formats, "MAX_FAILURES", 100)
    (tmp_path / "a.jsonl").write_text('{"text": 1}\n' * 50 + '{"text": " "}\n' * 60)
    with pytest.raises(InputError) as error:
        read(run, tmp_path / "a.jsonl")
    assert "101 rows give no document (unreadable_row 50, empty 51)" in error.value.why
    assert "a.jsonl#1: 'text' is a int, not text" in error.value.why


def test_unusable_rows_among_as_many_usable_ones_are_failures(run, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_FAILURES", 100)
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": 1}\n' * 150)
    artifact = read(run, tmp_path / "a.jsonl")
    assert (artifact.rows("documents"), artifact.rows("failures")) == (150, 150)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_small_file_of_200_million_nulls_is_one_error(tmp_path):
    nulls(tmp_path / "a.parquet", ROWS)
    done = crawled(
        tmp_path / "store", kind="files", name="mine", paths=[str(tmp_path / "a.parquet")]
    )
    assert "1,000,001 rows give no document" in done.error
    assert done.peak <= 512


def test_a_chat_file_with_more_rows_than_bytes_is_one_error(tmp_path):
    nulls(tmp_path / "few.parquet", 9000)
    assert (tmp_path / "few.parquet").stat().st_size < 9000
    assert len(list(read_rows(str(tmp_path / "few.parquet")))) == 9000
    nulls(tmp_path / "many.parquet", 2_000_000)
    with pytest.raises(InputError, match=r"many\.parquet: holds 2,000,000 or more rows in"):
        list(read_rows(str(tmp_path / "many.parquet")))


def test_a_damaged_footer_of_parquet_is_one_error(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["abc"] * 100}), path)
    sound = path.read_bytes()
    source = FilesSource.parse({"paths": [str(path)]}, "crawl")
    refusals = []
    for at in range(9, 200):
        damaged = bytearray(sound)
        damaged[-at] ^= 0xFF
        path.write_bytes(damaged)
        message = refusal(lambda: list(formats.read(source, [path])))
        if message:
            refusals.append(message)
            assert "a.parquet: is damaged" in message
    assert len(refusals) > 50
    assert any("Couldn't deserialize thrift" in message for message in refusals)  # an OSError
