"""Recall: does the model answer questions about documented names as the documentation does?

Each name is asked about twice: in words that the model was tuned on, and in words that it never saw.
The documented answer is the one that the conversations give, so nothing is compared with a list of ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts import Artifact
from stages.evaluate.config import RecallSettings
from stages.lm.chat import ChatFormat
from stages.lm.checkpoint import load_model
from stages.lm.generate import generate

SEEN, REWORDED = "recall", "recall_reworded"  # names of the two scores' tasks
VERSION = "1"
WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
BEGINS = re.compile(r"[A-Z0-9`'\"(<]")
ENDS = re.compile(r"[.!?][\"'`)\]]*$")
PAIRS = (("(", ")"), ("[", "]"), ("{", "}"))
LEAST_WORDS = 3
REPEATED_WORDS = 4  # a run of so many words that stands twice is a loop


@dataclass(frozen=True)
class Question:
    """task: SEEN or REWORDED. reference: the documented answer."""

    task: str
    name: str
    text: str
    reference: str


@dataclass(frozen=True)
class Answer:
    """What the model said. exact: word for word the reference. well_formed: English that stops."""

    question: Question
    text: str
    exact: bool
    well_formed: bool


@dataclass(frozen=True)
class Exam:
    """missing: names that no conversation answers. words: all that occur in the answers tuned on."""

    questions: list[Question]
    missing: list[str]
    words: frozenset[str]


def exam(conversations: Artifact, settings: RecallSettings) -> Exam:
    """The questions to ask, from the conversations that the model was tuned on.

    A name is known if a training conversation of one question and one answer asks about it.
    """
    asked: dict[str, str] = {}
    words: set[str] = set()
    for batch in conversations.batches("conversations", ["messages", "split"], batch_size=1024):
        for row in batch.to_pylist():
            if row["split"] != "train" or len(row["messages"]) != 2:
                continue
            question, answer = (message["content"] for message in row["messages"])
            asked.setdefault(question, answer)
            words.update(_words(answer))
    by_name = {name: _questions_about(name, asked) for name in settings.names}
    questions = []
    for name, found in by_name.items():
        if not found:
            continue
        first = found[0]
        questions.append(Question(SEEN, name, first, asked[first]))
        reworded = settings.wording.format(name=name)
        if reworded not in asked:
            questions.append(Question(REWORDED, name, reworded, asked[first]))
    missing = [name for name, found in by_name.items() if not found]
    return Exam(questions, missing, frozenset(words))


def ask(
    checkpoint: Path,
    device: str,
    given: Exam,
    new_tokens: int,
    batch_size: int,
    heard: Callable[[int], None],
) -> list[Answer]:
    """The greedy answer to every question, through the chat template."""
    chat, model = ChatFormat(checkpoint), load_model(checkpoint, device)
    prompts = chat.prompts([[{"role": "user", "content": one.text}] for one in given.questions])
    fitting = [
        number for number, prompt in enumerate(prompts) if len(prompt) < model.config.context
    ]
    said = generate(
        model,
        [prompts[number] for number in fitting],
        max_new_tokens=new_tokens,
        stop=chat.stop_ids,
        batch_size=batch_size,
        on_batch=heard,
    )
    given_ids = dict(zip(fitting, said, strict=True))
    answers = []
    for number, question in enumerate(given.questions):
        if (
            number not in given_ids
        ):  # longer than the context: a question that cannot be read is not answered
            answers.append(Answer(question, "", False, False))
            continue
        ids = given_ids[number]
        text, room = chat.text(ids), model.config.context - len(prompts[number]) + 1
        ended = len(ids) < min(new_tokens, room)
        exact = ended and text.split() == question.reference.split()
        answers.append(Answer(question, text, exact, ended and is_well_formed(text, given.words)))
    return answers


def is_well_formed(text: str, words: frozenset[str]) -> bool:
    """Whether `text` has the form of English prose: a heuristic that needs no model.

    Begins like a sentence and ends like one; brackets and backticks are closed; at least three words,
    all of them in `words`; no run of four words stands twice.
    """
    said = list(_words(text))
    if len(said) < LEAST_WORDS or not BEGINS.match(text) or not ENDS.search(text):
        return False
    if (
        any(text.count(opening) != text.count(closing) for opening, closing in PAIRS)
        or text.count("`") % 2
    ):
        return False
    runs = [tuple(said[at : at + REPEATED_WORDS]) for at in range(len(said) - REPEATED_WORDS + 1)]
    return len(set(runs)) == len(runs) and words.issuperset(said)


def score_rows(answers: list[Answer]) -> Iterator[dict[str, Any]]:
    """Two rows per task: the share of documented answers, and that of well-formed ones."""
    for task in (SEEN, REWORDED):
        mine = [answer for answer in answers if answer.question.task == task]
        if not mine:
            continue
        verdicts = {
            "exact_match": [answer.exact for answer in mine],
            "well_formed": [answer.well_formed for answer in mine],
        }
        for metric, values in verdicts.items():
            n, share = len(values), sum(values) / len(values)
            stderr = math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else None
            yield {
                "task": task, "metric": metric, "value": share, "stderr": stderr, "n": n,
                "higher_is_better": True, "task_version": VERSION,
            }  # fmt: skip


def sample_rows(answers: list[Answer]) -> Iterator[dict[str, Any]]:
    """One row per question."""
    for answer in answers:
        question = answer.question
        yield {
            "task": question.task,
            "item": question.name,
            "loglikelihoods": [],
            "correct": answer.exact,
        }


def _questions_about(name: str, asked: dict[str, str]) -> list[str]:
    """Questions that hold `name` as a whole, not as part of a longer dotted name."""
    pattern = re.compile(rf"(?<![\w.]){re.escape(name)}(?!\w|\.\w)")
    return [question for question in asked if pattern.search(question)]


def _words(text: str) -> Iterator[str]:
    return (word.lower() for word in WORD.findall(text))
