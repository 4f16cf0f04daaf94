"""Untrusted text stays text in cards and on pages of the Prefect UI: no link, no image, no HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from data_contracts import Artifact, Manifest, Store
from data_contracts.foreign_text import line
from data_contracts.store.artifact import InputRef
from flows.prefect_host import run_page
from stages.describe.config import DescribeConfig
from stages.describe.data_card import data_card
from stages.describe.model_card import model_card
from stages.reporting import lineage, markdown, pictures
from stages.reporting.markdown import folded, paragraphs, plain, quotation, table
from tests.data_contracts import publishing

ATTACKS = [
    "[click](javascript:alert(1))",
    "![](https://tracker.example/x.png)",
    "[![](https://tracker.example/x.png)](javascript:alert(1))",
    "<img src=https://tracker.example/x.png>",
    "<a href=javascript:alert(1)>x</a>",
    "<https://evil.example>",
    "<script>alert(1)</script>",
    "[x]: javascript:alert(1)\n[x]",
    "[x]: https://evil.example\n\n![x]",
    "x\n\n![](https://tracker.example/x.png)",
    "</details><img src=x>",
    "| a | b |\n|---|---|\n| ![](https://tracker.example) | x |",
    "```\n![](https://tracker.example)",
    "~~~~\n[x](javascript:1)",
    "# heading",
    "- item\n- item",
    "1. item",
    "> quoted",
    "===",
    "---",
    "x\n===",
    "\\[x](javascript:1)",
    "\\\\[x](javascript:1)",
    "`[x](javascript:1)",
    "``` ![x](https://tracker.example)",
    "![x][y]",
    "&lt;img src=x&gt; &#91;x](javascript:1)",
    "<!-- -->",
    "$$x$$",
    "*a* **b** _c_ __d__ ~~e~~",
    "javascript:alert(1)",
    "\x1b]8;;https://evil.example\x1b\\x",
    "\u202egnp.exe",
]
ACTIVE = {"link_open", "image", "html_inline", "html_block"}
RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
syntax = st.text(st.sampled_from("[]()!<>&\\`*_~#-+=.|:/\"' \n\t1ab$^{}\u202e\x1b"), max_size=40)


def tokens(text: str) -> Iterator[Token]:
    for token in RENDERER.parse(text):
        yield token
        yield from token.children or []


def kinds(text: str) -> list[str]:
    return [token.type for token in tokens(text)]


@pytest.mark.parametrize("attack", ATTACKS)
def test_foreign_text_is_text_wherever_it_stands_on_a_page(attack: str) -> None:
    for page in (
        plain(attack),
        f"# {plain(attack)}",
        f"> {plain(attack)}",
        f"- {plain(attack)}",
        f"**{plain(attack)}**",
        paragraphs(attack),
        table((attack, "b"), [[attack, attack]]),
        quotation(attack),
    ):
        assert not ACTIVE & set(kinds(page)), page
    assert "<script" not in folded(attack, "")
    assert "<img" not in folded(attack, "")


def as_read(page: str) -> str:
    """Return the text that a reader sees in the first paragraph, cell or item."""
    inline = next(token for token in RENDERER.parse(page) if token.type == "inline")
    assert {child.type for child in inline.children or []} <= {
        "text",
        "text_special",
        "code_inline",
    }
    return "".join(child.content for child in inline.children or [])


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(syntax)
def test_a_reader_sees_foreign_text_as_it_was_written(text: str) -> None:
    written = line(" ".join(text.split()))
    if not written:
        return
    for before, block in (
        ("", "paragraph_open"),
        ("# ", "heading_open"),
        ("> ", "blockquote_open"),
        ("- ", "bullet_list_open"),
    ):
        page = f"{before}{plain(text)}\n\nafter"
        found = RENDERER.parse(page)
        assert found[0].type == block, page
        assert [token.content for token in found if token.type == "inline"][-1] == "after", page
        if "`" not in text:  # code shows entities as they are written
            assert as_read(page) == written, page
        assert not ACTIVE & set(kinds(page)), page


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(syntax, min_size=2, max_size=2), min_size=1, max_size=4))
def test_foreign_text_leaves_no_cell_of_a_table(rows: list[list[str]]) -> None:
    found = kinds(table(("a", "b"), rows))
    assert found.count("tr_open") == len(rows) + 1
    assert found.count("td_open") == 2 * len(rows)
    assert not ACTIVE & set(found)


@settings(max_examples=300, deadline=None)
@given(syntax)
def test_foreign_text_does_not_end_a_quotation(text: str) -> None:
    found = RENDERER.parse(f"{quotation(text)}\n\nafter")
    assert [token.type for token in found[:2]] == ["fence", "paragraph_open"]


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/x",
        "http://evil.example",
        "www.evil.example",
        "see HTTPS://evil.example",
    ],
)
def test_renderers_that_look_for_addresses_find_none(address: str) -> None:
    assert not re.search(r"(?i)\w+://|www\.", plain(address))
    assert as_read(plain(address)) == address, "a reader still sees it"


def test_credentials_of_older_artifacts_are_masked_in_cards() -> None:
    address = "https://user:hunter2@example.org/"
    made = _manifest(settings={"data_files": [address]}, config={"data_files": [address]})
    for page in (
        plain(address),
        quotation(address),
        table(("a",), [[address]]),
        markdown.settings(made),
    ):
        assert "hunter2" not in page
        assert "***" in page.replace("\\", "")


@pytest.mark.parametrize("attack", ATTACKS)
def test_cards_obey_nothing_that_a_recipe_says(attack: str) -> None:
    said = attack[:100]
    own = [_active(card(DescribeConfig(), {}, None)) for card in (model_card, data_card)]
    config = DescribeConfig(
        name=said,
        summary=attack,
        author=said,
        contact=said,
        license=said,
        data_license=said,
        intended_use=attack,
    )
    assert [_active(card(config, {}, None)) for card in (model_card, data_card)] == own


def _active(card: str) -> list[str]:
    """Links, images and HTML of a card after its front matter, which the hub reads as settings."""
    body = card.split("\n---\n", 1)[-1] if card.startswith("---") else card
    return [
        f"{token.type} {token.attrs} {token.content}"
        for token in tokens(body)
        if token.type in ACTIVE
    ]


def _manifest(**fields: Any) -> Manifest:
    values: dict[str, Any] = {
        "groundup": "0",
        "id": "a" * 24,
        "artifact_type": "raw_documents",
        "contract": "1.0.0",
        "stage": "crawl",
        "stage_version": 1,
        "as_of": None,
        "config": {},
        "settings": {},
        "inputs": {},
        "rows": {},
        "facts": {},
        "files": [],
        "started": "x",
        "finished": "x",
    }
    return Manifest.model_construct(**(values | fields))


@pytest.mark.parametrize(
    "attack",
    [
        *ATTACKS,
        '"]; click A href "javascript:alert(1)"',
        'x"] --> B',
        "x\nclick A call alert(1)",
        "%%{init: {}}%%",
    ],
)
def test_a_chart_of_lineage_has_no_statement_but_our_own(attack: str) -> None:
    ref = InputRef.model_construct(artifact_type=attack, id=attack)
    made = _manifest(
        id=attack, artifact_type=attack, stage=attack, rows={attack: 1}, inputs={"x": ref}
    )
    for row in lineage.mermaid([made, _manifest()]).splitlines():
        assert re.fullmatch(
            r'flowchart TD|  \w+\["[^"<>\x1b]*(<b>[^"<>]*</b>)?(<br/>[^"<>]*)*"\](:::absent)?|'
            r"  \w+ --> \w+|  classDef .*",
            row,
        ), row


@pytest.mark.parametrize(
    "attack", ["$", "$\\frac{", "a_$b^c$", "<b>&", "]]>", "-->", "\x1b\0", "\u202e"]
)
def test_pictures_draw_any_text_as_text(attack: str) -> None:
    row = {
        "task": attack,
        "metric": attack,
        "value": 0.5,
        "stderr": 0.1,
        "baseline": 0.25,
        "baseline_name": attack,
    }
    made = _manifest(rows={"documents": 1, "failures": 1}, facts={"rejected": {attack: 1}})
    for svg in (pictures.scores_svg([row]), pictures.funnel_svg([made])):
        assert svg.rstrip().endswith("</svg>")
        assert "\x1b" not in svg
        assert "\0" not in svg


@pytest.fixture
def page(store: Store, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The page that Prefect receives for an artifact with these facts."""

    def draw(facts: dict[str, Any]) -> str:
        drawn: list[str] = []
        identity = publishing.identity("raw_documents", {"facts": repr(facts)})
        artifact, _ = store.publish("raw_documents", identity, {}, {}, lambda _: facts)
        monkeypatch.setattr(
            run_page,
            "create_markdown_artifact",
            lambda markdown, key, description: drawn.append(markdown),
        )
        monkeypatch.setattr(run_page, "flow_run", type("Run", (), {"id": str(UUID(int=1))}))
        _shown_without_catching(artifact, store)
        return drawn[0]

    return draw


def _shown_without_catching(artifact: Artifact, store: Store) -> None:
    show_stage: Any = run_page.show_stage
    show_stage.__wrapped__(artifact, "demo/raw_documents", store)


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_page_of_a_run_obeys_nothing_that_a_page_or_a_manifest_says(page, attack: str) -> None:
    attack = attack.replace("\0", "")
    facts = {
        "figures": {attack: attack},
        "notes": [attack],
        "samples": [{attack: attack}],
        "rejected": {attack: 1},
    }
    text = page(facts)
    assert not ACTIVE & set(kinds(text)), text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert kinds(text).count("fence") == 2, (
        "the sample and the chart: nothing began a block of its own"
    )
