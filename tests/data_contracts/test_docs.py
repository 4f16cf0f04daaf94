"""The pages beside the contracts say what the contracts say."""

from __future__ import annotations

from data_contracts import Contracts, current, docs
from data_contracts.contract import ROOT, SHIPPED
from tests.data_contracts.made_up import columns, release


def test_the_pages_beside_the_contracts_are_up_to_date():
    assert [str(path.relative_to(ROOT)) for path in docs.stale()] == [], (
        "run: groundup contracts docs"
    )


def test_a_page_names_every_column_file_and_rule():
    for artifact_type in SHIPPED.artifact_types:
        contract = current(artifact_type)
        page = docs.markdown(contract)
        for table in contract.tables:
            assert f"## Table `{table}`" in page
            for prop in contract.columns(table):
                assert f"\n| {prop.name} | " in page
        for rule in contract.files:
            assert f"| {rule.name} | `{rule.glob}` |" in page
        for name in contract.rules:
            assert name.replace("_", " ") in page


def test_the_inside_of_lists_bounds_and_choices_are_shown():
    page = docs.markdown(current("conversations"))
    assert "| messages | list of struct | yes | items ≥ 2 |" in page
    assert "| messages[].role | string | yes | `system` or `user` or `assistant` |" in page
    assert (
        "every row of raw_documents.documents is found again, once, in documents or rejects"
        in docs.markdown(current("clean_documents"))
    )


def test_pages_are_written_once_and_keep_what_a_person_wrote_around_the_index(tmp_path):
    release(tmp_path)
    contracts = Contracts(tmp_path, {})
    (tmp_path / "README.md").write_text(f"Before.\n\n{docs.BEGIN}\nold\n{docs.END}\n\nAfter.\n")
    assert docs.write(contracts) == [tmp_path / "pages" / "README.md", tmp_path / "README.md"]
    assert docs.write(contracts) == []
    home = (tmp_path / "README.md").read_text()
    assert home.startswith("Before.\n")
    assert home.endswith("\nAfter.\n")
    assert "| [pages](pages/README.md) | 1.0.0 |" in home
    assert "old" not in home


def test_a_bar_in_a_rule_does_not_break_the_table(tmp_path):
    release(
        tmp_path,
        change=lambda c: columns(c)[0].update(
            logicalTypeOptions={"pattern": "^(a|b)$"}, description="a|b"
        ),
    )
    assert r"| unique, `^(a\|b)$` | a\|b |" in docs.markdown(Contracts(tmp_path).current("pages"))
