"""Planted questions are found, verbatim or disguised; what only looks like one is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts import InputError
from stages.decontaminate import ngrams, stage
from stages.decontaminate.ngrams import NgramIndex
from stages.text.ngrams import WordHashes
from stages.text.words import Words, words
from tests.golden import made_up
from tests.golden.decontaminate import QUESTION, item

WORDS = st.sampled_from(["ab", "cd", "ef", "gh", "ij", "kl"])


@pytest.fixture
def cleaned(publish: Any, run: Any) -> Any:
    """cleaned(texts, items, **settings): the stage's output for pages that begin with `texts`."""

    def go(texts: list[str], items: list[dict[str, Any]], pages: int = 4, **changed: Any) -> Any:
        train = made_up.documents(0, len(texts) + pages)
        for row, text in zip(train, texts, strict=False):
            row["text"] = text
        train = made_up.unique(train)
        heldout = made_up.unique(made_up.documents(500, 1))
        documents = publish("unique_documents", train=train, heldout=heldout, rejects=[])
        return run(
            "decontaminate",
            {"workers": 1} | changed,
            unique_documents=documents,
            eval_items=publish("eval_items", items=items, pages=[]),
        )

    return go


def rejected(made: Any) -> list[str]:
    """Texts of the rejects."""
    return [row["text"] for row in made.read("rejects").to_pylist()]


@pytest.mark.parametrize(
    "planted",
    [
        QUESTION,
        f"{made_up.page(90)}\n{QUESTION}\n{made_up.page(91)}",
        QUESTION.upper(),
        QUESTION.replace(" ", "\n   "),
        QUESTION.replace(",", " –").replace(".", "!!").replace("?", ""),
        # One word near the beginning changed: thirteen consecutive words remain.
        QUESTION.replace("nine", "ten"),
        "Q: " + " ".join(QUESTION.split()[8:]),
        QUESTION.replace("fi", "ﬁ").replace("f", "ｆ"),  # ligature and full-width letters
    ],
    ids=[
        "whole",
        "inside",
        "capitals",
        "line breaks",
        "punctuation",
        "a word changed",
        "second half",
        "look-alikes",
    ],
)
def test_a_planted_question_is_rejected(cleaned: Any, planted: str) -> None:
    made = cleaned([planted], [item(QUESTION)])
    (row,) = made.read("rejects").to_pylist()
    assert row["text"] == planted
    assert (row["reason"], row["item"]) == ("contaminated", item(QUESTION)["id"])
    assert row["ngram"] in " ".join(words(planted, Words.FOLDED))
    assert len(row["ngram"].split()) == 13
    assert made.rows("documents") == 4
    assert made.manifest.facts["rejected"] == {"contaminated": 1}


def test_twelve_words_in_a_row_are_not_thirteen(cleaned: Any) -> None:
    words = QUESTION.split()
    made = cleaned([" ".join(words[:12]) + " stop " + " ".join(words[13:25])], [item(QUESTION)])
    assert rejected(made) == []


def test_short_evidence_must_match_whole_and_shorter_evidence_is_only_counted(cleaned: Any) -> None:
    # The answer, "eleven", is the last word of each evidence.
    eight = "one two three four five six seven"
    seven = "red orange yellow green blue indigo"
    texts = [f"so {eight} eleven then", f"so {seven} eleven then", eight]
    made = cleaned(texts, [item(eight), item(seven)])
    (row,) = made.read("rejects").to_pylist()
    assert row["ngram"] == f"{eight} eleven"
    assert made.manifest.facts["figures"]["items_too_short"] == 1


def test_in_scripts_without_spaces_characters_are_words(cleaned: Any) -> None:
    question = "农夫有九只红色的母鸡和四只褐色的鹅他卖掉了一半"
    made = cleaned([f"从前，{question[3:20]}。", question[:10]], [item(question)])
    assert len(rejected(made)) == 1


def test_boilerplate_of_heldout_pages_is_set_aside_and_reported(cleaned: Any) -> None:
    licence = (
        "this page may be copied by anyone for any purpose "
        "as long as this very sentence stays in it"
    )
    texts = [f"{made_up.page(100 + n)}\n{licence}" for n in range(6)] + [f"{licence}\n{QUESTION}"]
    items = [item(licence, origin="heldout"), item(QUESTION)]
    strict = cleaned(texts, items, max_document_frequency=7)
    loose = cleaned(texts, items, max_document_frequency=3)
    assert len(rejected(strict)) == 7
    assert rejected(loose) == [texts[-1]]
    (row,) = loose.read("rejects").to_pylist()
    assert row["item"] == item(QUESTION)["id"]
    figures = loose.manifest.facts["figures"]
    assert figures["documents_spared"] == 6
    assert figures["boilerplate_ngrams"] == len(licence.split()) - 12
    assert "6 documents hold nothing else" in loose.manifest.facts["notes"][0]


@pytest.mark.parametrize(
    "also",
    [[], [item(QUESTION, task="page", origin="heldout")]],
    ids=["alone", "shared with a held-out item"],
)
def test_a_benchmark_question_is_no_boilerplate_however_often_it_was_copied(
    cleaned: Any, also: list[dict[str, Any]]
) -> None:
    copies = [f"{made_up.page(100 + n)}\n{QUESTION}" for n in range(21)]
    made = cleaned(copies, [*also, item(QUESTION)])
    assert rejected(made) == copies
    figures = made.manifest.facts["figures"]
    assert figures["boilerplate_ngrams"] == 0
    assert figures["documents_spared"] == 0
    assert figures["most_documents_of_an_item"] == 21


def test_the_first_item_hit_and_the_number_of_hits_are_recorded(cleaned: Any) -> None:
    other = (
        "the second question speaks of seven ships "
        "that leave the harbour at dawn and come back at night"
    )
    made = cleaned([f"{other}\n{QUESTION}"], [item(QUESTION), item(other)])
    (row,) = made.read("rejects").to_pylist()
    assert row["item"] == item(other)["id"]
    assert row["hits"] == (len(other.split()) - 12) + (len(words(QUESTION, Words.FOLDED)) - 12)
    figures = made.manifest.facts["figures"]
    assert figures["items"] == 2
    assert figures["items_found"] == 2
    assert figures["most_documents_of_an_item"] == 1


def test_items_that_share_an_ngram_all_count_as_found(cleaned: Any) -> None:
    made = cleaned([QUESTION], [item(QUESTION), item(QUESTION, answer="twelve")])
    assert made.manifest.facts["figures"]["items_found"] == 2


def test_kept_documents_keep_their_order_and_columns(cleaned: Any) -> None:
    made = cleaned([QUESTION, "a", QUESTION + " too"], [item(QUESTION)], pages=30)
    first, *others = made.read("documents").to_pylist()
    _, expected_first, _, *expected_others = made_up.documents(0, 33)
    assert first["id"] == expected_first["id"]
    columns = made.contract.arrow_schema("documents").names
    for row, expected in zip(others, expected_others, strict=True):
        assert row == {name: expected[name] for name in columns}


@pytest.mark.slow
def test_a_large_corpus_becomes_several_files_in_the_same_order(
    cleaned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [QUESTION if n % 1000 == 7 else "a few words" for n in range(3000)]
    one = cleaned(texts, [item(QUESTION)])
    tables = {table: one.read(table) for table in ("documents", "rejects")}
    one.path.joinpath("manifest.json").unlink()  # otherwise the second run would find it
    monkeypatch.setattr(stage, "SHARD_BYTES", 1)
    several = cleaned(texts, [item(QUESTION)])
    assert [len(several.table_paths(table)) for table in tables] == [3, 3]
    assert several.rows("rejects") == 3
    for table, rows in tables.items():
        assert several.read(table).equals(rows)


def test_without_items_everything_is_kept(cleaned: Any) -> None:
    made = cleaned([QUESTION], [])
    assert (made.rows("documents"), made.rows("rejects")) == (5, 0)


@pytest.mark.slow
def test_workers_change_nothing(publish: Any, run: Any) -> None:
    train = made_up.unique(made_up.documents(0, 700, text="short words only"))
    for n in (3, 255, 256, 600):
        train[n]["text"] = QUESTION
    documents = publish("unique_documents", train=train, heldout=[], rejects=[])
    items = publish("eval_items", items=[item(QUESTION)], pages=[])
    contents = []
    for workers in (1, 2):
        made = run(
            "decontaminate", {"workers": workers}, unique_documents=documents, eval_items=items
        )
        assert made.rows("rejects") == 4
        contents.append(made.manifest.content)
        made.path.joinpath("manifest.json").unlink()
    assert contents[0] == contents[1]


def test_no_documents_are_an_error(publish: Any, run: Any) -> None:
    heldout = made_up.unique(made_up.documents(0, 2))
    inputs = {
        "unique_documents": publish("unique_documents", train=[], heldout=heldout, rejects=[]),
        "eval_items": publish("eval_items", items=[], pages=[]),
    }
    message = r"train: 0 documents for training \(2 held out, 0 duplicates\)"
    with pytest.raises(InputError, match=message):
        run("decontaminate", {"workers": 1}, **inputs)


def test_rejecting_all_documents_is_an_error(cleaned: Any) -> None:
    with pytest.raises(InputError, match="all 2 documents share 13 words in a row with an item"):
        cleaned([QUESTION, QUESTION], [item(QUESTION)], pages=0)


def windows(words: list[str], length: int) -> set[tuple[str, ...]]:
    """Every run of `length` consecutive words."""
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(WORDS, max_size=30),
    st.lists(st.lists(WORDS, max_size=12), max_size=4),
    st.integers(2, 5),
    st.integers(0, 3),
)
def test_the_index_finds_what_a_plain_search_finds(
    text: list[str], evidence: list[list[str]], ngram: int, less: int
) -> None:
    shortest = max(ngram - less, 1)
    expected = set()
    for given_words in evidence:
        length = min(ngram, len(given_words))
        if length >= shortest:
            expected |= windows(given_words, length) & windows(text, length)
    index = NgramIndex.of([" ".join(given_words) for given_words in evidence], ngram, shortest)
    hits = index.hits(" ".join(text), WordHashes())
    assert {index.grams[number] for number in hits} == expected
    assert len(set(hits)) == len(hits)


def test_different_words_with_equal_hashes_are_not_a_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_hashes(hashes: np.ndarray, length: int) -> np.ndarray:
        return np.zeros(max(len(hashes) - length + 1, 0), np.uint64)

    monkeypatch.setattr(ngrams, "ngram_hashes", no_hashes)
    index = NgramIndex.of(["a b c d", "e f g h"], 3, 3)
    cache = WordHashes()
    assert [index.grams[number] for number in index.hits("x y z e f g", cache)] == [("e", "f", "g")]
    assert index.hits("x y z", cache) == []
