"""Which change of a contract breaks, and that a released one cannot change unnoticed."""

from __future__ import annotations

import pytest

from data_contracts import ContractError, Contracts, frozen
from data_contracts.compatibility import changes, find
from data_contracts.contract import SHIPPED, load
from tests.data_contracts.made_up import KIND, SIZE, TAGS, columns, custom, release

NEW = {"name": "note", "logicalType": "string", "physicalType": "string", "required": False}
FILE = {
    "name": "more",
    "physicalName": "more.bin",
    "logicalType": "string",
    "physicalType": "file",
    "required": False,
}
ADDRESS = {
    "name": "address",
    "logicalType": "object",
    "physicalType": "struct",
    "required": False,
    "properties": [NEW, NEW | {"name": "city"}],
}


def options(index, **values):
    return lambda c: columns(c)[index]["logicalTypeOptions"].update(values)


def choices(*values):
    return lambda c: columns(c)[KIND].update(enum=[{"value": value} for value in values])


def conserved(contract):
    columns(contract)[0].update(primaryKey=True)
    custom("conservation", {"from": "a.b", "into": ["rows"]})(contract)


TABLE = [
    # (change, where, what, is it breaking?)
    (lambda c: None, None, None, None),
    (lambda c: columns(c).reverse(), None, None, None),
    (lambda c: columns(c).append(NEW), "rows.note", "nullable column added", False),
    (
        lambda c: columns(c).append(NEW | {"required": True}),
        "rows.note",
        "required column added",
        True,
    ),
    (lambda c: columns(c).pop(KIND), "rows.kind", "column removed", True),
    (
        lambda c: columns(c)[SIZE].update(physicalType="int64"),
        "rows.size",
        "type int32 → int64",
        True,
    ),
    (lambda c: columns(c)[SIZE].update(required=False), "rows.size", "now nullable", True),
    (lambda c: columns(c)[KIND].update(required=True), "rows.kind", "now required", True),
    (lambda c: columns(c)[0].update(unique=False), "rows.id", "no longer unique", False),
    (lambda c: columns(c)[SIZE].update(unique=True), "rows.size", "now unique", True),
    (options(SIZE, minimum=-5), "rows.size", "minimum 0 → -5", False),
    (options(SIZE, minimum=1), "rows.size", "minimum 0 → 1", True),
    (options(SIZE, maximum=200), "rows.size", "maximum 100 → 200", False),
    (options(SIZE, maximum=50), "rows.size", "maximum 100 → 50", True),
    (
        lambda c: columns(c)[SIZE]["logicalTypeOptions"].pop("minimum"),
        "rows.size",
        "minimum 0 → None",
        False,
    ),
    (
        lambda c: columns(c)[KIND].update(logicalTypeOptions={"maxLength": 9}),
        "rows.kind",
        "maxLength None → 9",
        True,
    ),
    (options(TAGS, minItems=2), "rows.tags", "minItems 1 → 2", True),
    (options(TAGS, minItems=0), "rows.tags", "minItems 1 → 0", False),
    (
        lambda c: columns(c)[TAGS]["items"].update(logicalTypeOptions={"pattern": "^a"}),
        "rows.tags[]",
        "pattern ^[a-z]+$ → ^a",
        True,
    ),
    (
        lambda c: columns(c)[TAGS]["items"].update(physicalType="large_string"),
        "rows.tags[]",
        "type string → large_string",
        True,
    ),
    (choices("a", "b", "c"), "rows.kind", "choice c added", False),
    (choices("a"), "rows.kind", "choice b removed", True),
    (lambda c: columns(c)[KIND].pop("enum"), "rows.kind", "no longer one of a list", True),
    (lambda c: columns(c)[0].update(enum=[{"value": "x"}]), "rows.id", "now one of x", True),
    (
        lambda c: c["schema"].append(
            c["schema"][0] | {"name": "more", "physicalName": "more/*.parquet"}
        ),
        "more",
        "table added",
        True,
    ),
    (lambda c: c["schema"].pop(0), "rows", "table removed", True),
    (
        lambda c: c["schema"][1]["properties"].append(FILE),
        "file more",
        "optional file added",
        False,
    ),
    (
        lambda c: c["schema"][1]["properties"].append(FILE | {"required": True}),
        "file more",
        "required file added",
        True,
    ),
    (lambda c: c["schema"].pop(1), "file notes", "file removed", True),
    (
        lambda c: c["schema"][1]["properties"][0].update(physicalName="*.md"),
        "file notes",
        "*.txt → *.md",
        True,
    ),
    (
        lambda c: c["schema"][1]["properties"][0].update(required=True),
        "file notes",
        "now required",
        True,
    ),
    (custom("rules", ["gguf_header_is_readable"]), "rule gguf_header_is_readable", "added", True),
    (conserved, "conservation", "changed", True),
]


@pytest.mark.parametrize(("change", "where", "what", "breaking"), TABLE)
def test_each_change_is_reported_alone_with_whether_it_breaks(
    change, where, what, breaking, tmp_path
):
    found = changes(load(release(tmp_path / "old")), load(release(tmp_path / "new", change=change)))
    assert [(c.where, c.what, c.breaking) for c in found] == (
        [(where, what, breaking)] if where else []
    )


def test_what_was_taken_away_breaks_less_than_what_was_added(tmp_path):
    plain, ruled = (
        release(tmp_path / "a"),
        release(tmp_path / "b", change=custom("rules", ["gguf_header_is_readable"])),
    )
    assert [(c.what, c.breaking) for c in changes(load(ruled), load(plain))] == [("removed", False)]
    required = release(
        tmp_path / "c", change=lambda c: c["schema"][1]["properties"][0].update(required=True)
    )
    assert [(c.what, c.breaking) for c in changes(load(required), load(plain))] == [
        ("now optional", True)
    ]


def test_changes_inside_a_struct_are_reported_with_the_way_to_them(tmp_path):
    one = load(release(tmp_path / "a", change=lambda c: columns(c).append(ADDRESS)))
    longer = ADDRESS | {"properties": [NEW, NEW | {"name": "city", "required": True}]}
    assert [
        (c.where, c.what)
        for c in changes(
            one, load(release(tmp_path / "b", change=lambda c: columns(c).append(longer)))
        )
    ] == [("rows.address.city", "now required")]
    fewer = ADDRESS | {"properties": [NEW]}
    found = changes(one, load(release(tmp_path / "c", change=lambda c: columns(c).append(fewer))))
    assert [(c.where, c.what, c.breaking) for c in found] == [
        ("rows.address", "fields changed", True)
    ]


def test_a_contract_is_found_by_noun_by_version_and_by_file(tmp_path):
    release(tmp_path)
    path = release(tmp_path, "1.1.0")
    contracts = Contracts(tmp_path)
    assert str(find("pages", contracts).version) == "1.1.0"
    assert str(find("pages@1.0.0", contracts).version) == "1.0.0"
    assert str(find(str(path), contracts).version) == "1.1.0"
    assert str(find(str(path.rename(tmp_path / "old.yaml")), contracts).version) == "1.1.0"
    release(tmp_path, "1.1.0")
    with pytest.raises(ContractError, match=r"choose from: pages@1\.0\.0, pages@1\.1\.0"):
        find("pages@3.0.0", contracts)


def test_shipped_contracts_are_in_order_but_for_being_frozen():
    assert [problem for problem in frozen.problems(SHIPPED) if "is not frozen" not in problem] == []


def test_a_released_contract_cannot_change_unnoticed(tmp_path):
    contracts = Contracts(tmp_path, {})
    path = release(tmp_path)
    assert frozen.problems(contracts) == [
        "pages/v1.yaml is not frozen: run groundup contracts check --freeze"
    ]
    assert frozen.freeze(contracts) == ["pages/v1.yaml"]
    assert frozen.freeze(contracts) == []
    assert frozen.problems(contracts) == []
    text = path.read_text()
    path.write_text(text + "# a note\n")
    expected = [
        "pages/v1.yaml is frozen and was changed: restore it and write a new version beside it"
    ]
    assert frozen.problems(contracts) == expected
    with pytest.raises(
        ContractError, match=r"contract pages/v1\.yaml: was changed after its release"
    ):
        frozen.require("pages", contracts)
    assert frozen.freeze(contracts) == [], "freezing again must not cover a change up"
    assert frozen.problems(contracts) == expected
    path.unlink()
    assert frozen.problems(contracts) == ["pages/v1.yaml is frozen and missing: restore it"]
    path.write_text(text)
    assert frozen.problems(contracts) == []


def test_a_breaking_change_inside_a_major_version_is_reported(tmp_path):
    contracts = Contracts(tmp_path, {})
    release(tmp_path)
    release(tmp_path, "1.1.0", lambda c: columns(c).append(NEW))
    frozen.freeze(contracts)
    assert frozen.problems(contracts) == []
    release(tmp_path, "1.2.0", lambda c: columns(c).__setitem__(KIND, NEW))
    frozen.freeze(contracts)
    assert frozen.problems(contracts) == [
        "pages 1.1.0 → 1.2.0 breaks readers of 1.x: rows.kind: column removed",
    ]


def test_a_major_version_needs_a_migration(tmp_path):
    release(tmp_path)
    release(tmp_path, "2.0.0", lambda c: columns(c).pop(KIND))
    frozen.freeze(Contracts(tmp_path, {}))
    assert frozen.problems(Contracts(tmp_path, {})) == [
        "pages 1.0.0 → 2.0.0 has no migration: register one in data_contracts/migrations.py"
    ]
    assert frozen.problems(Contracts(tmp_path, {("pages", "rows", 1): lambda batch: batch})) == []


def test_a_table_that_a_major_version_adds_needs_no_migration(tmp_path):
    def with_a_table(contract):
        contract["schema"].append(
            contract["schema"][0] | {"name": "more", "physicalName": "more/*.parquet"}
        )

    release(tmp_path)
    release(tmp_path, "2.0.0", with_a_table)
    contracts = Contracts(tmp_path, {("pages", "rows", 1): lambda batch: batch})
    frozen.freeze(contracts)
    assert frozen.problems(contracts) == []


def test_a_frozen_list_that_cannot_be_read_is_one_clear_error(tmp_path):
    release(tmp_path)
    (tmp_path / "FROZEN").write_text("nonsense\n")
    with pytest.raises(ContractError, match="FROZEN"):
        frozen.problems(Contracts(tmp_path, {}))
