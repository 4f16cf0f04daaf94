"""Recall: questions about documented names, in words that were tuned on and in others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from data_contracts import ConfigError
from stages.evaluate import recall
from stages.evaluate.config import EvaluateConfig, RecallSettings
from stages.evaluate.recall import REWORDED, SEEN, is_well_formed, question_set, score_rows
from stages.lm.chat import ChatFormat
from stages.lm.tokenizer import ModelTokenizer
from stages.text.words import Words, words
from tests.golden import sft
from tests.golden.evaluate import ITEMS, PAGES

SORTED = "Return a new list that holds all items of the iterable in order."
WALK = "Go through a tree of folders."
CHATS = [
    sft.conversation("What does sorted do?", SORTED),
    sft.conversation("Explain sorted.", SORTED),
    sft.conversation("What does os.walk do?", WALK),
    sft.conversation("Tell me what os.walk is used for.", WALK),
    sft.conversation("What does os.path.split do?", "Split a path.", split="heldout"),
]
WORDS = frozenset(words(f"{SORTED} {WALK} it is a list", Words.ENGLISH))


@pytest.fixture
def conversations(publish: Any) -> Any:
    return publish("conversations", conversations=CHATS)


def test_each_known_name_is_asked_about_in_words_that_were_tuned_on_and_in_others(
    conversations: Any,
) -> None:
    found = question_set(
        conversations, RecallSettings(names=("sorted", "os.walk", "os.path.split", "os", "walk"))
    )
    asked = [
        (question.task, question.name, question.text, question.reference)
        for question in found.questions
    ]
    assert asked == [
        (SEEN, "sorted", "What does sorted do?", SORTED),
        (REWORDED, "sorted", "Tell me what sorted is used for.", SORTED),
        (SEEN, "os.walk", "What does os.walk do?", WALK),  # its other wording was tuned on
    ]
    assert found.missing == ["os.path.split", "os", "walk"], "held out, and parts of a longer name"


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (SORTED, True),
        ("It is a list (of items).", True),
        ("It is a list", False),
        ("it is a list.", False),
        ("It is a list (of items.", False),
        ("It is a `list.", False),
        ("List all.", False),
        ("It is a lizt.", False),
        ("It is a list of a list of a list of a list of items.", False),
        ("", False),
    ],
)
def test_well_formed_is_english_of_known_words_that_begins_ends_and_does_not_loop(
    text: str, good: bool
) -> None:
    assert is_well_formed(text, WORDS) is good


def answers(
    said: dict[str, str], conversations: Any, checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> list[recall.RecallAnswer]:
    """The answers of a model that says this, by question. It answers others without end."""
    chat = ChatFormat(ModelTokenizer(checkpoint))

    def generate(
        _: Any, prompts: Sequence[list[int]], *, max_new_tokens: int, **__: Any
    ) -> list[list[int]]:
        found = []
        for prompt in prompts:
            text = chat.tokenizer.backend.decode(prompt, skip_special_tokens=True)
            answer = next((said[question] for question in said if question in text), None)
            ids = (
                chat.tokenizer.backend.encode(answer).ids
                if answer
                else chat.tokenizer.backend.encode("a " * 99).ids
            )
            found.append(ids[:max_new_tokens])
        return found

    monkeypatch.setattr(recall, "generate", generate)
    asked = question_set(conversations, RecallSettings(names=("sorted", "os.walk")))
    return recall.ask(chat.tokenizer, "cpu", asked, 60, 8, lambda done: None)


def test_the_share_of_documented_answers_and_of_well_formed_ones_is_given_by_wording(
    publish: Any, conversations: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"What does sorted do?": SORTED, "What does os.walk do?": "Go through a list of items."}
    found = answers(said, conversations, sft.checkpoint(publish, context=160), monkeypatch)
    rows = {(row["task"], row["metric"]): (row["value"], row["n"]) for row in score_rows(found)}
    assert rows == {
        (SEEN, "exact_match"): (0.5, 2),
        (SEEN, "well_formed"): (1.0, 2),
        (REWORDED, "exact_match"): (0.0, 1),  # it went on and on
        (REWORDED, "well_formed"): (0.0, 1),
    }


@pytest.mark.slow
def test_the_stage_writes_recall_to_scores_and_samples_and_names_what_is_missing(
    publish: Any, run: Any, conversations: Any
) -> None:
    settings = {
        "recall": {"names": ["sorted", "os.walk", "re.sub"], "new_tokens": 4},
        "prompts": [],
        "device": "cpu",
    }
    given = {
        "checkpoint": sft.checkpoint(publish),
        "eval_items": publish("eval_items", items=ITEMS, pages=PAGES),
    }
    made = run("evaluate", settings, conversations=conversations, **given)
    scores = {(row["task"], row["metric"]): row for row in made.read("scores").to_pylist()}
    assert scores[SEEN, "exact_match"]["n"] == 2
    assert scores[REWORDED, "well_formed"]["n"] == 1
    samples = [row for row in made.read("samples").to_pylist() if row["task"] == SEEN]
    assert {row["item"] for row in samples} == {"sorted", "os.walk"}
    assert (
        "recall: 1 of 3 names are in no training conversation: re.sub."
        in made.manifest.facts["notes"]
    )
    with pytest.raises(ConfigError, match=r"asks about 3 names, and no conversations are given"):
        run("evaluate", settings, **given)


@pytest.mark.parametrize(
    "wording", ["Tell me more.", "What is {name} in {module}?", "What is {name?"]
)
def test_a_wording_must_hold_the_name_and_nothing_else(wording: str) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.recall\.wording .* must hold \{name\}"):
        EvaluateConfig.parse({"recall": {"wording": wording}}, "evaluate")
