"""Recall: does the model answer questions about documented names as the documentation does?

Each name is asked about twice: in a wording that the model was tuned on, and in one that it never
saw. The documented answer is the one that the conversations give, so there is no list of expected
answers here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from data_contracts import Artifact, ConfigError
from stages.evaluate.config import EvaluateConfig, RecallSettings
from stages.evaluate.model import device_name
from stages.evaluate.scores import Scores
from stages.lm.chat import ChatFormat
from stages.lm.checkpoint import load_model
from stages.lm.generate import generate
from stages.lm.tokenizer import ModelTokenizer
from stages.report import Report
from stages.text.sentences import Ending, ends_sentence
from stages.text.words import Words, words

SEEN, REWORDED = "recall", "recall_reworded"  # the tasks of the two scores
VERSION = "1"
BEGINS = re.compile(r"[A-Z0-9`'\"(<]")
PAIRS = (("(", ")"), ("[", "]"), ("{", "}"))
MIN_WORDS = 3
REPEATED_WORDS = 4  # a run of this many words that occurs twice is a loop
BATCH_SIZE = 64  # questions that are answered together; the answers do not depend on it
SHOWN_NAMES = 5


@dataclass(frozen=True)
class Question:
    """One question to the model. task: SEEN or REWORDED. reference: the documented answer."""

    task: str
    name: str
    text: str
    reference: str


@dataclass(frozen=True)
class RecallAnswer:
    """What the model said.

    Attributes:
        question: What it was asked.
        text: Its answer.
        exact: Whether the answer is the reference, word for word.
        well_formed: Whether the answer has the form of English and stops.
    """

    question: Question
    text: str
    exact: bool
    well_formed: bool


@dataclass(frozen=True)
class QuestionSet:
    """All questions of an evaluation.

    Attributes:
        questions: What to ask.
        missing: Names that no conversation answers.
        known_words: All words of the answers that the model was tuned on.
    """

    questions: list[Question]
    missing: list[str]
    known_words: frozenset[str]


def score_recall(
    config: EvaluateConfig,
    tokenizer: ModelTokenizer,
    conversations: Artifact | None,
    report: Report,
) -> Scores:
    """Ask about the names of the settings, if there are any.

    Args:
        config: The settings of the stage.
        tokenizer: The tokenizer of the checkpoint, beside the model.
        conversations: What the model was tuned on.
        report: Receives the progress.

    Raises:
        ConfigError: There are names, but no conversations that answer questions about them.
    """
    scores = Scores()
    names = config.recall.names
    if not names:
        return scores
    if conversations is None:
        raise ConfigError(
            "evaluate.recall.names",
            f"asks about {len(names)} names, and no conversations are given",
            "add conversations=NAME/conversations, or set evaluate.recall.names to nothing",
        )
    asked = question_set(conversations, config.recall)
    if asked.missing:
        shown = ", ".join(asked.missing[:SHOWN_NAMES])
        if len(asked.missing) > SHOWN_NAMES:
            shown += " …"
        count = f"{len(asked.missing)} of {len(names)} names"
        scores.notes.append(f"recall: {count} are in no training conversation: {shown}.")
    total = len(asked.questions)
    answers = ask(
        tokenizer,
        device_name(config.device),
        asked,
        config.recall.new_tokens,
        BATCH_SIZE,
        lambda done: report.progress(done, total, "questions"),
    )
    scores.scores = list(score_rows(answers))
    scores.samples = list(sample_rows(answers))
    return scores


def question_set(conversations: Artifact, settings: RecallSettings) -> QuestionSet:
    """Return the questions to ask, from the conversations that the model was tuned on.

    A name is known if a training conversation of one question and one answer asks about it.

    Args:
        conversations: What the model was tuned on.
        settings: Names to ask about, and the second wording.
    """
    asked, known_words = _training_questions(conversations)
    questions = []
    missing = []
    for name in dict.fromkeys(settings.names):
        about_name = _questions_about(name, asked)
        if not about_name:
            missing.append(name)
            continue
        first = about_name[0]
        reference = asked[first]
        questions.append(Question(SEEN, name, first, reference))
        reworded = settings.wording.format(name=name)
        if reworded not in asked:
            questions.append(Question(REWORDED, name, reworded, reference))
    return QuestionSet(questions, missing, frozenset(known_words))


def _training_questions(conversations: Artifact) -> tuple[dict[str, str], set[str]]:
    """Return the first answer to each question tuned on, and all words of the answers."""
    answers: dict[str, str] = {}
    known_words: set[str] = set()
    for batch in conversations.batches("conversations", ["messages", "split"], batch_size=1024):
        for row in batch.to_pylist():
            if row["split"] != "train" or len(row["messages"]) != 2:
                continue
            question, answer = (message["content"] for message in row["messages"])
            answers.setdefault(question, answer)
            known_words.update(words(answer, Words.ENGLISH))
    return answers, known_words


def ask(
    tokenizer: ModelTokenizer,
    device: str,
    asked: QuestionSet,
    new_tokens: int,
    batch_size: int,
    on_progress: Callable[[int], None],
) -> list[RecallAnswer]:
    """Return the greedy answer to every question, through the chat template.

    Args:
        tokenizer: The tokenizer of the checkpoint, beside the model.
        device: Where to run it.
        asked: The questions.
        new_tokens: The longest answer, in tokens.
        batch_size: Questions that are answered together.
        on_progress: Called at every batch with the number of questions answered so far.
    """
    chat = ChatFormat(tokenizer)
    model = load_model(tokenizer.folder, device)
    context = model.config.context
    prompts = chat.prompts([[{"role": "user", "content": one.text}] for one in asked.questions])
    fitting = [number for number, prompt in enumerate(prompts) if len(prompt) < context]
    generated = generate(
        model,
        [prompts[number] for number in fitting],
        max_new_tokens=new_tokens,
        stop=chat.stop_ids,
        batch_size=batch_size,
        on_batch=on_progress,
    )
    ids_by_number = dict(zip(fitting, generated, strict=True))
    answers = []
    for number, question in enumerate(asked.questions):
        if number not in ids_by_number:
            # the question is longer than the context, so the model cannot read it
            answers.append(RecallAnswer(question, "", False, False))
            continue
        ids = ids_by_number[number]
        text = chat.text(ids)
        max_tokens = min(new_tokens, context - len(prompts[number]) + 1)
        has_ended = len(ids) < max_tokens
        exact = has_ended and _are_equal(text, question.reference)
        well_formed = has_ended and is_well_formed(text, asked.known_words)
        answers.append(RecallAnswer(question, text, exact, well_formed))
    return answers


def is_well_formed(text: str, known_words: frozenset[str]) -> bool:
    """Return whether `text` has the form of English prose: a heuristic that needs no model.

    The text begins and ends like a sentence and closes its brackets and backticks. It has at least
    three words, all of them in `known_words`, and no run of four words occurs twice.

    Args:
        text: An answer.
        known_words: Words that an answer may have, in lower case.
    """
    found = words(text, Words.ENGLISH)
    if len(found) < MIN_WORDS or not BEGINS.match(text):
        return False
    if not ends_sentence(text, Ending.ENGLISH):
        return False
    if any(text.count(opening) != text.count(closing) for opening, closing in PAIRS):
        return False
    if text.count("`") % 2:
        return False
    starts = range(len(found) - REPEATED_WORDS + 1)
    runs = [tuple(found[start : start + REPEATED_WORDS]) for start in starts]
    return len(set(runs)) == len(runs) and known_words.issuperset(found)


def score_rows(answers: list[RecallAnswer]) -> Iterator[dict[str, Any]]:
    """Return two rows per task: the share of documented answers, and of well-formed ones.

    Args:
        answers: What the model said.
    """
    for task in (SEEN, REWORDED):
        of_task = [answer for answer in answers if answer.question.task == task]
        if of_task:
            yield _score_row(task, "exact_match", [answer.exact for answer in of_task])
            yield _score_row(task, "well_formed", [answer.well_formed for answer in of_task])


def _score_row(task: str, metric: str, verdicts: list[bool]) -> dict[str, Any]:
    n = len(verdicts)
    share = sum(verdicts) / n
    return {
        "task": task,
        "metric": metric,
        "value": share,
        "stderr": math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else None,
        "n": n,
        "higher_is_better": True,
        "task_version": VERSION,
    }


def sample_rows(answers: list[RecallAnswer]) -> Iterator[dict[str, Any]]:
    """Return one row per question."""
    for answer in answers:
        question = answer.question
        yield {
            "task": question.task,
            "item": question.name,
            "loglikelihoods": [],
            "correct": answer.exact,
        }


def _questions_about(name: str, asked: dict[str, str]) -> list[str]:
    """Return the questions that contain `name` as a whole, not as part of a longer dotted name."""
    pattern = re.compile(rf"(?<![\w.]){re.escape(name)}(?!\w|\.\w)")
    return [question for question in asked if pattern.search(question)]


def _are_equal(text: str, reference: str) -> bool:
    """Return whether two texts are equal word for word, whatever white space is between."""
    return words(text, Words.SPACED) == words(reference, Words.SPACED)
