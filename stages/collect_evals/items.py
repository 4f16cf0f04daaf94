"""Multiple-choice items from pages: the text itself says what follows, so no person and no model has to write a question.

Wrong choices are right answers of other items: from the nearest pages, of nearly the same length, none nearly equal to the right
one. The right choice is as often the shortest, second shortest … longest, so that length tells nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from stages.collect_evals.config import CollectEvalsConfig
from stages.collect_evals.nearest import Page
from stages.collect_evals.passages import Segment, words
from stages.collect_evals.seen import key
from stages.digests import digest, seed_for

DESCRIPTION, SECTION, CONTINUATION = (
    "heldout_description",
    "heldout_section",
    "heldout_continuation",
)
TASKS = (DESCRIPTION, SECTION, CONTINUATION)

LENGTH_BAND = 1.3  # a wrong choice is at most so many times as long as the right one, or as short
NEARLY_EQUAL = 0.6  # Jaccard similarity of words from which two choices count as the same
PER_PAGE = 64  # candidates of a task that one page may give
MIN_CONTEXT = 80  # characters before a continuation
WORDS_BEFORE = 5  # of the question in the evidence: the question alone gives nothing away
HARDEST_OF = 8  # wrong choices are the likest of so many times as many as are needed


@dataclass(frozen=True)
class Candidate:
    """page: its number. question: what stands before. answer: what follows. before: the segment right before the answer."""

    page: int
    question: str
    answer: str
    before: str
    bag: frozenset[str]

    @property
    def length(self) -> int:
        return len(self.answer)


def make(
    task: str,
    pages: Sequence[Page],
    near: Sequence[Sequence[int]],
    seen: Set[int],
    config: CollectEvalsConfig,
) -> list[dict[str, Any]]:
    """Up to `config.max_items` rows of the items table, spread evenly over the pages.

    near: the nearest pages of each. seen: keys of segments that are also trained on, and therefore not used.
    """
    candidates = _candidates(task, pages, seen, config)
    ranks: Counter[int] = Counter()
    rows: list[dict[str, Any]] = []
    for candidate in _round_robin(candidates):
        if len(rows) == config.max_items:
            break
        # for a continuation, sentences of the same page could be right
        places = (
            near[candidate.page]
            if task == CONTINUATION
            else [candidate.page, *near[candidate.page]]
        )
        others = chain.from_iterable(candidates[place] for place in places)
        wrong = _wrong_choices(
            candidate, others, by_likeness=task != CONTINUATION, ranks=ranks, config=config
        )
        if wrong is not None:
            rows.append(_row(task, candidate, wrong, pages[candidate.page], config.seed))
    return rows


def _candidates(
    task: str, pages: Sequence[Page], seen: Set[int], config: CollectEvalsConfig
) -> list[list[Candidate]]:
    """Candidates of each page, in an order given by the seed. What occurs more than once in the pages is boilerplate and left out."""
    once = Counter(tuple(words(segment.text)) for page in pages for segment in page.segments)
    found = []
    for number, page in enumerate(pages):
        mine = []
        for before, segment in zip(page.segments, page.segments[1:], strict=False):
            fits = (
                config.min_characters <= len(segment.text) <= config.max_characters
                and segment.is_prose
            )
            if (
                not fits
                or once[tuple(words(segment.text))] > 1
                or key(segment.text) in seen
                or key(before.text) in seen
            ):
                continue
            question = _question(task, page, before, segment, config.context_characters)
            if question is None or (task != CONTINUATION and once[tuple(words(before.text))] > 1):
                continue
            mine.append(
                Candidate(
                    number, question, segment.text, before.text, frozenset(words(segment.text))
                )
            )
        mine.sort(key=lambda c: seed_for(config.seed, task, page.id, c.question, c.answer))
        found.append(mine[:PER_PAGE])
    return found


def _question(task: str, page: Page, before: Segment, segment: Segment, context: int) -> str | None:
    """What stands before the answer, or None if this place in the page gives no item of the task."""
    if task == CONTINUATION:
        start = next(s.start for s in page.segments if s.start >= segment.start - context)
        shown = page.text[start : segment.start].rstrip()
        return shown if len(shown) >= MIN_CONTEXT and segment.text not in shown else None
    if (task == DESCRIPTION and before.is_signature) or (task == SECTION and before.is_heading):
        return f"{page.title}\n\n{before.text}" if page.title else before.text
    return None


def _wrong_choices(
    right: Candidate,
    others: Iterable[Candidate],
    by_likeness: bool,
    ranks: Counter[int],
    config: CollectEvalsConfig,
) -> list[str] | None:
    """Wrong choices such that the right one gets the length rank that is rarest so far; None if there are not enough.

    others: nearest pages first. by_likeness: of those, the ones that share most words with the right one and what stands before it.
    """
    count, seed = config.choices - 1, config.seed
    enough = count * (HARDEST_OF if by_likeness else 2)
    shorter: list[Candidate] = []
    longer: list[Candidate] = []
    for other in others:
        side = shorter if other.length < right.length else longer
        if len(side) < enough and other.length != right.length and _usable(right, other):
            side.append(other)
        if len(shorter) == len(longer) == enough:
            break
    possible = [
        rank for rank in range(count + 1) if len(shorter) >= rank and len(longer) >= count - rank
    ]
    if not possible:
        return None
    rank = min(
        possible, key=lambda r: (ranks[r], seed_for(seed, "rank", right.question, right.answer, r))
    )
    ranks[rank] += 1
    about = right.bag | frozenset(words(right.before))

    def easiness(other: Candidate) -> tuple[float, int]:
        likeness = (
            _jaccard(about, other.bag | frozenset(words(other.before))) if by_likeness else 0.0
        )
        return -likeness, seed_for(seed, "wrong", right.question, right.answer, other.answer)

    return [
        other.answer
        for other in sorted(shorter, key=easiness)[:rank]
        + sorted(longer, key=easiness)[: count - rank]
    ]


def _usable(right: Candidate, other: Candidate) -> bool:
    ratio = other.length / right.length
    if not 1 / LENGTH_BAND <= ratio <= LENGTH_BAND:
        return False
    return _jaccard(right.bag, other.bag) < NEARLY_EQUAL and other.answer not in right.question


def _row(task: str, right: Candidate, wrong: list[str], page: Page, seed: int) -> dict[str, Any]:
    choices = sorted(
        [right.answer, *wrong], key=lambda choice: seed_for(seed, "order", right.question, choice)
    )
    return {
        "id": digest(task, right.question, *choices),
        "task": task,
        "question": right.question,
        "choices": choices,
        "answer": choices.index(right.answer),
        "evidence": " ".join([*right.before.split()[-WORDS_BEFORE:], right.answer]),
        "origin": "heldout",
        "document": page.id,
        "url": page.url,
    }


def _round_robin(candidates: list[list[Candidate]]) -> Iterator[Candidate]:
    return (c for layer in zip_longest(*candidates) for c in layer if c is not None)


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / max(len(a | b), 1)
