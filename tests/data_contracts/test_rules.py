"""Every rule of every column, broken alone: the error names column, rule, file and row only."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts import ContractError, current
from data_contracts.check import TableCheck, differences, table
from data_contracts.contract import SHIPPED, load
from data_contracts.store.writer import TableWriter
from tests.data_contracts.samples import broken_rows, good_rows, ill_typed

TABLES = [
    (artifact_type, name)
    for artifact_type in SHIPPED.artifact_types
    for name in current(artifact_type).tables
]


def written(
    folder: Path, artifact_type: str, name: str, *shards: list[dict], first: int = 0
) -> list[str]:
    """The problems that the writer or the check reports."""
    try:
        for number, rows in enumerate(shards, first):
            with TableWriter(
                current(artifact_type), name, folder / name / f"part-{number:05d}.parquet"
            ) as writer:
                writer.write(rows)
    except ContractError as error:
        return [line.strip() for line in error.why.splitlines()[1:]]
    return table(current(artifact_type), name, folder)[1]


@pytest.mark.parametrize(("artifact_type", "name"), TABLES)
def test_rows_made_from_the_contract_keep_it(artifact_type, name, tmp_path):
    contract = current(artifact_type)
    assert (
        written(
            tmp_path,
            artifact_type,
            name,
            good_rows(contract, name, 3),
            good_rows(contract, name, 3, first=3),
        )
        == []
    )
    assert table(contract, name, tmp_path)[0] == 6


@pytest.mark.parametrize(("artifact_type", "name"), TABLES)
def test_a_broken_rule_is_reported_with_column_rule_file_and_row_and_nothing_else_is(
    artifact_type, name, tmp_path
):
    contract = current(artifact_type)
    first, good = good_rows(contract, name, 3), good_rows(contract, name, 3, first=3)
    assert written(tmp_path, artifact_type, name, first) == []
    for broken in broken_rows(contract, name, first[0]):
        second = [*map(dict, good)]
        broken.spoil(second[1])
        problems = written(tmp_path, artifact_type, name, second, first=1)
        (tmp_path / name / "part-00001.parquet").unlink()
        assert len(problems) == 1, (str(broken), problems)
        assert problems[0].startswith(
            f"{name}/part-00001.parquet row 1: {name}.{broken.column} breaks {broken.rule}: "
        )


@pytest.mark.parametrize(("artifact_type", "name"), TABLES)
def test_a_value_of_another_type_is_refused_by_the_writer_with_its_row(
    artifact_type, name, tmp_path
):
    good = good_rows(current(artifact_type), name, 3)
    for prop in current(artifact_type).columns(name):
        rows = [*good[:2], good[2] | {prop.name: ill_typed(prop)}]
        (problem,) = written(tmp_path / prop.name, artifact_type, name, rows)
        assert problem.startswith(f"{name}/part-00000.parquet row 2: {name}.{prop.name} is not ")


def rewritten(folder: Path, artifact_type: str, name: str, change) -> list[str]:
    """What is said of a shard whose columns another program changed."""
    assert written(folder, artifact_type, name, good_rows(current(artifact_type), name, 3)) == []
    path = folder / name / "part-00000.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    return table(current(artifact_type), name, folder)[1]


@pytest.mark.parametrize(("artifact_type", "name"), TABLES)
def test_a_column_that_is_missing_renamed_or_of_another_type_is_reported_by_name(
    artifact_type, name, tmp_path
):
    assert written(tmp_path, artifact_type, name, good_rows(current(artifact_type), name, 3)) == []
    good = pq.read_table(tmp_path / name / "part-00000.parquet").schema
    for at, column in enumerate(good.names):
        assert differences(current(artifact_type), name, good.remove(at)) == [
            f"column {column!r} is missing"
        ]
        assert differences(
            current(artifact_type), name, good.set(at, good.field(at).with_name(column + "s"))
        ) == [
            f"column {column!r} is missing; found {column + 's'!r}, which is not in the contract",
            f"column {column + 's'!r} is not in the contract",
        ]
        (problem,) = differences(
            current(artifact_type), name, good.set(at, good.field(at).with_type(pa.date32()))
        )
        assert problem.startswith(f"column {column!r} is date32[day], the contract says ")


@pytest.mark.parametrize(("artifact_type", "name"), TABLES)
def test_a_column_too_many_and_another_order_are_reported(artifact_type, name, tmp_path):
    problems = rewritten(
        tmp_path / "a",
        artifact_type,
        name,
        lambda found: found.append_column("extra", pa.array([1, 2, 3])),
    )
    assert problems == [f"{name}/part-00000.parquet: column 'extra' is not in the contract"]
    (problem,) = rewritten(
        tmp_path / "b", artifact_type, name, lambda found: found.select(found.column_names[::-1])
    )
    assert "columns are in the order" in problem


def test_all_differences_of_a_schema_are_reported_at_once(tmp_path):
    def change(found: pa.Table) -> pa.Table:
        return found.rename_columns(
            ["txt" if n == "text" else n for n in found.column_names]
        ).drop_columns(["title"])

    problems = rewritten(tmp_path, "eval_items", "pages", change)
    assert problems == [
        "pages/part-00000.parquet: column 'title' is missing",
        "pages/part-00000.parquet: column 'text' is missing; "
        "found 'txt', which is not in the contract",
        "pages/part-00000.parquet: column 'txt' is not in the contract",
    ]


def test_a_rule_that_many_rows_break_is_reported_once_with_their_number(tmp_path):
    rows = [
        [
            row | {"answer": -1}
            for row in good_rows(current("eval_items"), "items", 5, first=5 * shard)
        ]
        for shard in range(2)
    ]
    (problem,) = written(tmp_path, "eval_items", "items", *rows)
    assert (
        problem == "items/part-00000.parquet row 0: items.answer breaks minimum: "
        "-1 is below 0 (and 9 more rows)"
    )


def test_a_duplicate_names_the_row_that_has_the_key_already(tmp_path):
    first, second = (
        good_rows(current("eval_items"), "pages", 4),
        good_rows(current("eval_items"), "pages", 4, first=4),
    )
    second[3]["id"] = first[2]["id"]
    (problem,) = written(tmp_path, "eval_items", "pages", first, second)
    assert (
        problem == "pages/part-00001.parquet row 3: pages.id breaks unique: "
        "the same key is in pages/part-00000.parquet row 2"
    )


@pytest.mark.slow
def test_many_duplicates_are_found_across_batches_and_files(tmp_path):
    steps = good_rows(current("checkpoint"), "metrics", 20_000)
    (problem,) = written(
        tmp_path,
        "checkpoint",
        "metrics",
        steps,
        [steps[19_999], *good_rows(current("checkpoint"), "metrics", 1, 20_000)],
    )
    assert problem.endswith(
        "metrics/part-00001.parquet row 0: metrics.step breaks unique: "
        "the same key is in metrics/part-00000.parquet row 19999"
    )


NESTED = """
apiVersion: v3.1.0
kind: DataContract
id: test.nested
name: nested
version: 1.0.0
status: active
schema:
  - name: rows
    physicalName: rows/*.parquet
    physicalType: table
    logicalType: object
    properties:
      - name: grid
        logicalType: array
        physicalType: list
        required: false
        logicalTypeOptions: {maxItems: 3}
        items:
          name: item
          logicalType: array
          physicalType: list
          required: false
          items:
            name: item
            logicalType: integer
            physicalType: int32
            required: true
            logicalTypeOptions: {minimum: 0, maximum: 9}
      - name: address
        logicalType: object
        physicalType: struct
        required: false
        properties:
          - name: city
            logicalType: string
            physicalType: string
            required: true
            logicalTypeOptions: {minLength: 1}
          - name: tags
            logicalType: array
            physicalType: list
            required: false
            items:
              name: item
              logicalType: string
              physicalType: string
              required: false
              enum: [{value: a}, {value: "{b}"}]
"""


def nested(tmp_path: Path, rows: list[dict], start: int = 0) -> list[str]:
    path = tmp_path / "nested" / "v1.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(NESTED)
    contract = load(path)
    batch = (
        pa.Table.from_pylist(rows, contract.arrow_schema("rows")).combine_chunks().to_batches()[0]
    )
    check = TableCheck(contract, "rows")
    check.batch(batch.slice(start), "f", start)
    return [
        f"{v.column} {v.rule} row {v.row} rows {v.rows}: {v.detail}" for v in check.violations()
    ]


def test_values_inside_lists_and_structs_are_reported_with_the_way_to_them_and_the_row(tmp_path):
    rows = [
        {"grid": None, "address": None},
        {"grid": [], "address": {"city": "x", "tags": None}},
        {"grid": [[1], None, []], "address": {"city": "x", "tags": ["a", None]}},
        {"grid": [[], [2, 10]], "address": {"city": "", "tags": ["c", "{b}"]}},
        {"grid": [[1], [2], [3], [-1]], "address": {"city": "x", "tags": ["d"]}},
    ]
    wanted = [
        "grid maxItems row 4 rows 1: [[1], [2], [3], [-1]] is longer than 3",
        "grid[][] minimum row 4 rows 1: -1 is below 0",
        "grid[][] maximum row 3 rows 1: 10 is above 9",
        "address.city minLength row 3 rows 1: '' is shorter than 1",
        "address.tags[] enum row 3 rows 2: 'c' is none of a, {b}",
    ]
    for start in range(4):  # a slice keeps the memory of the whole, and its offsets
        assert nested(tmp_path, rows, start) == wanted


def test_null_inside_is_reported_where_it_is_not_allowed(tmp_path):
    assert nested(tmp_path, [{"grid": [[1, None]]}]) == [
        "grid[][] required row 0 rows 1: null where a value is required"
    ]
    assert nested(tmp_path, [{}, {"address": {}}]) == [
        "address.city required row 1 rows 1: null where a value is required"
    ]


def test_an_empty_batch_breaks_nothing(tmp_path):
    assert nested(tmp_path, [{}], start=1) == []


def test_text_that_is_not_utf8_is_refused(tmp_path):
    contract = current("eval_items")
    assert written(tmp_path, "eval_items", "pages", good_rows(contract, "pages", 2)) == []
    path = tmp_path / "pages" / "part-00000.parquet"
    found = pq.read_table(path)
    broken = pa.array([b"\xff\xfe", b"ok"], pa.large_binary()).view(pa.large_string())
    pq.write_table(
        found.set_column(found.column_names.index("text"), found.schema.field("text"), broken), path
    )
    (problem,) = table(contract, "pages", tmp_path)[1]
    assert problem.startswith("pages/part-00000.parquet: cannot be read")
    assert "UTF8" in problem
