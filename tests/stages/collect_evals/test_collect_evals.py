"""Items are answerable and hard.

Neither length, position, boilerplate nor the training split gives an answer away.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts import ConfigError, InputError
from stages.collect_evals import items as making
from stages.collect_evals import nearest
from stages.collect_evals.config import CollectEvalsConfig
from stages.collect_evals.passages import folded_words, segments
from tests.golden import collect_evals as golden
from tests.golden import made_up

REFERENCE = """\
ospath

Common operations on path names.  They are the same everywhere
and need no import.

Functions
join(a, *p)
Join two or more components, inserting '/' as needed.
If any component is absolute, all before
are discarded.
split(p) -> (head, tail)
Split a path name.

| a | b | 1 | 2 |
"""


@pytest.fixture
def collected(publish: Any, run: Any) -> Any:
    """collected(heldout, train, **settings): what the stage makes of these documents."""

    def collect(
        heldout: list[dict[str, Any]], train: list[dict[str, Any]] | None = None, **changed: Any
    ) -> Any:
        documents = publish(
            "unique_documents",
            train=made_up.unique(train or []),
            heldout=made_up.unique(heldout),
            rejects=[],
        )
        return run("collect_evals", {"workers": 1} | changed, unique_documents=documents)

    return collect


@pytest.fixture(scope="module")
def many() -> list[dict[str, Any]]:
    """The items of sixty pages."""
    pages = [
        nearest.HeldoutPage(r["id"], r["url"], r["title"], "en", r["text"])
        for r in made_up.documents(0, 60)
    ]
    near = nearest.neighbours(pages)
    rows = []
    for task in making.TASKS:
        rows += making.make(task, pages, near, set(), CollectEvalsConfig())
    return rows


def right(row: dict[str, Any]) -> str:
    return row["choices"][row["answer"]]


def test_a_page_is_read_as_sentences_signatures_and_headings() -> None:
    found = segments(REFERENCE)
    assert [s.text for s in found if s.is_signature] == ["join(a, *p)", "split(p) -> (head, tail)"]
    assert [s.text for s in found if s.is_heading] == ["ospath"]
    assert [s.text for s in found if s.is_prose] == [
        "Common operations on path names.",
        "They are the same everywhere and need no import.",
        "Join two or more components, inserting '/' as needed.",
        "If any component is absolute, all before are discarded.",
    ]
    assert all(REFERENCE[s.start : s.end].split() == s.text.split() for s in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Он пришёл. Она ушла! Кто там?", ["Он пришёл.", "Она ушла!", "Кто там?"]),
        ("他来了。她走了！谁在那里？", ["他来了。", "她走了！", "谁在那里？"]),
        ("यह पहला है। यह दूसरा है।", ["यह पहला है।", "यह दूसरा है।"]),
        ('He said "stop." Then he left.', ['He said "stop."', "Then he left."]),
        ("See e.g. the manual.", ["See e.g. the manual."]),
        ("", []),
    ],
)
def test_sentences_end_in_every_script(text: str, expected: list[str]) -> None:
    assert [s.text for s in segments(text)] == expected


@pytest.mark.slow
def test_all_three_tasks_come_from_pages_that_have_the_like(many: list[dict[str, Any]]) -> None:
    counts = Counter(row["task"] for row in many)
    assert counts["heldout_continuation"] == 400
    assert counts["heldout_description"] == 400
    assert counts["heldout_section"] > 40


def test_the_right_choice_is_what_follows_in_the_page(many: list[dict[str, Any]]) -> None:
    texts = {row["id"]: " ".join(row["text"].split()) for row in made_up.documents(0, 60)}
    for row in many:
        question = row["question"]
        if row["task"] != making.CONTINUATION:
            question = question.split("\n\n")[-1]
        assert f"{' '.join(question.split())} {right(row)}" in texts[row["document"]]
        if row["task"] == making.CONTINUATION:
            assert sum(choice in texts[row["document"]] for choice in row["choices"]) == 1


def test_neither_length_nor_position_gives_the_answer_away(many: list[dict[str, Any]]) -> None:
    for task in making.TASKS[::2]:
        rows = [row for row in many if row["task"] == task]
        margin = 3 * (0.25 * 0.75 / len(rows)) ** 0.5
        for choose in (
            lambda c: c.index(max(c, key=len)),
            lambda c: c.index(min(c, key=len)),
            lambda c: c.index(sorted(c, key=len)[1]),
            lambda c: 0,
            lambda c: len(c) - 1,
            lambda c: c.index(max(c, key=lambda choice: len(choice.split()))),
        ):
            score = sum(choose(row["choices"]) == row["answer"] for row in rows) / len(rows)
            assert abs(score - 0.25) <= margin, task


def test_wrong_choices_are_hard_but_wrong(many: list[dict[str, Any]]) -> None:
    for row in many:
        assert len(set(row["choices"])) == 4
        for choice in row["choices"]:
            assert 1 / 1.31 <= len(choice) / len(right(row)) <= 1.31
            if choice != right(row):
                a, b = set(folded_words(choice)), set(folded_words(right(row)))
                assert len(a & b) / len(a | b) < making.NEARLY_EQUAL


def test_wrong_choices_come_from_the_nearest_pages(many: list[dict[str, Any]]) -> None:
    topic_of_page = {}
    topic_of_sentence = {}
    for number, row in enumerate(made_up.documents(0, 60)):
        topic_of_page[row["id"]] = number % 4  # every fourth page shares words
        for segment in segments(row["text"]):
            topic_of_sentence[segment.text] = number % 4
    has_same_topic = []
    for row in many:
        if row["task"] != making.CONTINUATION:
            continue
        topic = topic_of_page[row["document"]]
        wrong = [choice for choice in row["choices"] if choice != right(row)]
        has_same_topic += [topic_of_sentence[choice] == topic for choice in wrong]
    assert sum(has_same_topic) / len(has_same_topic) > 0.8


def test_questions_end_without_a_space_and_choices_begin_without_one(
    many: list[dict[str, Any]],
) -> None:
    for row in many:
        assert row["question"] == row["question"].rstrip()
        assert all(choice == choice.strip() for choice in row["choices"])


def test_the_evidence_is_the_answer_and_little_of_the_question(many: list[dict[str, Any]]) -> None:
    for row in many:
        assert row["evidence"].endswith(right(row))
        before = row["evidence"].removesuffix(right(row)).split()
        assert 1 <= len(before) <= 5
        assert " ".join(before) in " ".join(row["question"].split())


def test_items_are_spread_over_the_pages(many: list[dict[str, Any]]) -> None:
    by_page = Counter(row["document"] for row in many if row["task"] == making.CONTINUATION)
    assert len(by_page) == 60
    assert max(by_page.values()) - min(by_page.values()) <= 4


@pytest.mark.slow
def test_sentences_that_are_boilerplate_or_trained_on_are_not_used(collected: Any) -> None:
    heldout, train = made_up.documents(0, 12), made_up.documents(50, 2)
    boilerplate = "Nobody shall use this sentence for an item at all."
    for row in heldout:
        row["text"] += f"\n{boilerplate}"
    plain = collected(heldout, train).read("items").to_pylist()
    assert boilerplate not in [choice for row in plain for choice in row["choices"]]
    known = {right(row) for row in plain[:30]}
    train[0]["text"] += "\n" + "\n".join(sorted(known)).upper()
    rest = collected(heldout, train).read("items").to_pylist()
    assert len(rest) > 50
    assert not known & {choice for row in rest for choice in row["choices"]}


@pytest.mark.slow
def test_pages_of_another_language_give_no_wrong_choices(collected: Any) -> None:
    german, latin = made_up.documents(0, 8, language="de"), made_up.documents(8, 8, language="la")
    pages = {row["id"]: row["language"] for row in german + latin}
    home = {s.text: row["language"] for row in german + latin for s in segments(row["text"])}
    rows = collected(german + latin).read("items").to_pylist()
    assert {pages[row["document"]] for row in rows} == {"de", "la"}
    assert all(home[choice] == pages[row["document"]] for row in rows for choice in row["choices"])


@pytest.mark.slow
def test_the_order_of_documents_does_not_matter_and_the_seed_does(collected: Any) -> None:
    heldout = made_up.documents(0, 12)
    first = collected(heldout).read("items")
    assert collected(heldout[::-1]).read("items") == first
    assert collected(heldout, seed=1).read("items") != first


def test_pages_are_drawn_by_hash_and_cut_at_a_line(collected: Any) -> None:
    heldout = made_up.documents(0, 30)
    pages = collected(heldout, max_pages=7, max_page_characters=300).read("pages").to_pylist()
    assert len(pages) == 7
    assert [page["id"] for page in pages] != [row["id"] for row in heldout[:7]]
    texts = {row["id"]: row["text"] for row in heldout}
    for page in pages:
        assert 150 <= len(page["text"]) <= 300
        assert texts[page["id"]].startswith(page["text"] + "\n")


def test_pages_without_sentences_give_no_items_and_a_note(collected: Any) -> None:
    made = collected(made_up.documents(0, 3, text="| 1 | 2 | 3 |\n" * 20))
    assert (made.rows("items"), made.rows("pages")) == (0, 3)
    assert (
        "No items: 3 held-out pages have no sentences that fit" in made.manifest.facts["notes"][0]
    )


def test_nothing_held_out_is_an_error(collected: Any) -> None:
    with pytest.raises(
        InputError, match=r"heldout: 0 held-out documents \(2 for training, 0 duplicates\)"
    ):
        collected([], made_up.documents(0, 2))


ROWS = [
    {"question": "2 + 2?\nAnswer: ", "choices": [" three", "four"], "answer": 1},
    {"question": "Red?", "choices": ["a", "b"], "answer": 0},
]


def test_benchmarks_are_read_from_jsonl_and_parquet(collected: Any, tmp_path: Path) -> None:
    (tmp_path / "Sums-1.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "more.parquet")
    made = collected(
        made_up.documents(0, 2),
        max_items=0,
        benchmarks=[str(tmp_path / "Sums-1.jsonl"), str(tmp_path / "more.parquet")],
    )
    rows = made.read("items").to_pylist()
    assert [row["task"] for row in rows] == ["sums_1", "sums_1", "more", "more"]
    assert rows[0]["question"] == "2 + 2?\nAnswer:"
    assert rows[0]["choices"] == ["three", "four"]
    assert rows[0]["evidence"] == "2 + 2?\nAnswer: four"
    assert (rows[0]["origin"], rows[0]["url"]) == ("benchmark", "file://Sums-1.jsonl")


def test_a_byte_order_mark_is_no_part_of_a_benchmark(collected: Any, tmp_path: Path) -> None:
    (tmp_path / "sums.jsonl").write_text(json.dumps(ROWS[0]), encoding="utf-8-sig")
    assert (
        collected(
            made_up.documents(0, 2), max_items=0, benchmarks=[str(tmp_path / "sums.jsonl")]
        ).rows("items")
        == 1
    )


def test_a_benchmark_may_lie_in_the_home_folder(
    collected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "sums.jsonl").write_text(json.dumps(ROWS[0]))
    made = collected(made_up.documents(0, 2), max_items=0, benchmarks=["~/sums.jsonl"])
    assert [(row["task"], row["url"]) for row in made.read("items").to_pylist()] == [
        ("sums", "file://sums.jsonl")
    ]


def test_a_benchmark_counts_by_name_and_content(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    here, there = tmp_path / "a.jsonl", tmp_path / "elsewhere" / "a.jsonl"
    for path in (here, there):
        path.write_text(json.dumps(ROWS[0]))
    before = CollectEvalsConfig(benchmarks=(str(here),)).identity()
    assert CollectEvalsConfig(benchmarks=(str(there),)).identity() == before
    here.write_text(json.dumps(ROWS[1]))
    assert CollectEvalsConfig(benchmarks=(str(here),)).identity() != before


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "row 1: is not JSON"),
        ("\n\n{", "row 3: is not JSON"),
        ("[" * 100_000, "row 1: is not JSON: maximum recursion"),
        (
            '{"question": "q", "choices": ["a", "b"], "answer": ' + "1" * 5000 + "}",
            "row 1: is not JSON: Exceeds the limit",
        ),
        ('{"question": "q", "choices": ["a", "a "], "answer": 0}', "two choices are equal"),
        ("[1]", "row 1: is not an object"),
        ('{"question": "q", "answer": 0}', "row 1: lacks choices"),
        ('{"question": "q", "choices": ["a"], "answer": 0}', "at least two texts"),
        ('{"question": "q", "choices": ["a", "a"], "answer": 0}', "two choices are equal"),
        (
            '{"question": "q", "choices": ["a", "b"], "answer": 2}',
            "answer = 2 is not an index from 0 to 1",
        ),
        ('{"question": "q", "choices": ["a", "b"], "answer": "a"}', "answer = 'a' is not an index"),
        ('{"question": " ", "choices": ["a", "b"], "answer": 0}', "question is not a text"),
    ],
)
def test_a_benchmark_row_out_of_shape_is_named(
    collected: Any, tmp_path: Path, line: str, why: str
) -> None:
    (tmp_path / "bad.jsonl").write_text(line)
    with pytest.raises(InputError, match=why):
        collected(made_up.documents(0, 2), benchmarks=[str(tmp_path / "bad.jsonl")])


def test_two_benchmarks_of_one_name_are_refused(collected: Any, tmp_path: Path) -> None:
    for name in ("x.jsonl", "X.json"):
        (tmp_path / name).write_text(json.dumps(ROWS[0]))
    with pytest.raises(ConfigError, match="its task would be called 'x', which is taken"):
        collected(
            made_up.documents(0, 2),
            benchmarks=[str(tmp_path / "x.jsonl"), str(tmp_path / "X.json")],
        )


def test_the_golden_input_gives_items_of_every_task(publish: Any, run: Any) -> None:
    made = run("collect_evals", golden.SETTINGS, **golden.inputs(publish))
    assert set(made.read("items").column("task").to_pylist()) == set(making.TASKS)
