"""Hostile tables: endless rows in a few kilobytes, damaged footers, and who is blamed."""

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


REASONS = {
    "UTF-16": (
        "a.jsonl",
        '{"text": "a"}\n'.encode("utf-16"),
        "null bytes",
        "convert the file to UTF-8",
    ),
    "UTF-16 of a table": (
        "a.csv",
        "text,b\na,b\n".encode("utf-16"),
        "null bytes",
        "convert the file to UTF-8",
    ),
    "lines that are not JSON": ("a.jsonl", b"hello\n", "not JSON", "one JSON object per line"),
    "lists": ("a.jsonl", b"[1]\n", "a list, not an object", "one JSON object per line"),
    "a line that is too long": (
        "a.jsonl",
        b'{"text": "' + b"a" * 5000 + b'"}\n',
        "a line of more than 4,096 bytes",
        "split the rows that are too large",
    ),
    "another field": ("a.jsonl", b'{"body": "a"}\n', "there is body", "set text_field"),
    "two fields of the name": (
        "a.jsonl",
        b'{"text": "a", "text": "b"}\n',
        "several fields 'text'",
        "rename the fields",
    ),
    "two columns of the name": (
        "a.csv",
        b"text,text\na,b\n",
        "has 2 columns 'text'",
        "rename the fields",
    ),
    "rows without the column": (
        "a.csv",
        b"b,text\na\n",
        "has 1 fields",
        "every row as many fields",
    ),
    "a quote that is not closed": (
        "a.csv",
        b'text\n"a\n' + b"b\n" * 1000,
        "a quote that opens in the row at line 2 is not closed until the end of the file",
        "close that quote",
    ),
}


@pytest.mark.parametrize("case", REASONS)
def test_a_table_without_documents_says_the_reason_with_an_example(run, tmp_path, case):
    name, data, why, fix = REASONS[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as error:
        read(run, tmp_path / name, limits={"max_page_bytes": 1024})
    assert why in error.value.why
    assert fix in error.value.fix
    assert ("text_field" in error.value.fix) == ("text_field" in fix or "rename" in fix)


def test_two_columns_of_parquet_with_the_name_are_refused(run, tmp_path):
    column = pa.array(["a"])
    table = pa.Table.from_arrays([column, column], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has 2 columns 'text'"):
        read(run, tmp_path / "a.parquet")


def test_a_quote_that_is_not_closed_costs_its_row_alone(run, tmp_path):
    (tmp_path / "a.csv").write_bytes(b'text\n"one\nrow"\ntwo\n"three\nfour\n')
    artifact = read(run, tmp_path / "a.csv")
    assert [row["body"] for row in artifact.read("documents").to_pylist()] == [b"one\nrow", b"two"]
    (failure,) = artifact.read("failures").to_pylist()
    assert failure["url"].endswith("a.csv#3")
    assert "opens in the row at line 5 is not closed" in failure["detail"]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n"])
def test_the_end_of_a_table_is_no_row(run, tmp_path, end):
    (tmp_path / "a.csv").write_bytes(b'text\n"one"' + end)
    artifact = read(run, tmp_path / "a.csv")
    assert [row["body"] for row in artifact.read("documents").to_pylist()] == [b"one"]
    assert artifact.rows("failures") == 0
