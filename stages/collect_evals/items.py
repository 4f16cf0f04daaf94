"""Makes multiple-choice items of pages: the text itself says what follows.

No person and no model has to write a question. Wrong choices are right answers of other items. They
come from the nearest pages, have nearly the same length, and none nearly equals the right one. The
right choice is the shortest, the second shortest … or the longest equally often, so that its length
does not give it away.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import chain, pairwise, zip_longest
from typing import Any

from stages.collect_evals.config import CollectEvalsConfig
from stages.collect_evals.nearest import HeldoutPage
from stages.collect_evals.passages import Segment, folded_words
from stages.collect_evals.seen import key
from stages.digests import digest, seed_for
from stages.text.words import Words, words

DESCRIPTION = "heldout_description"
SECTION = "heldout_section"
CONTINUATION = "heldout_continuation"
TASKS = (DESCRIPTION, SECTION, CONTINUATION)

LENGTH_BAND = 1.3  # the longer of a wrong and the right choice has at most so many times the length
NEARLY_EQUAL = 0.6  # Jaccard similarity of words from which two choices count as the same
MAX_PER_PAGE = 64  # candidates of a task from one page
MIN_CONTEXT = 80  # characters before a continuation
WORDS_BEFORE = 5  # of the question in the evidence: the question alone gives nothing away
HARDEST_OF = 8  # wrong choices are the most similar of so many times as many as are needed


@dataclass(frozen=True)
class Candidate:
    """A passage that can become an item, or a wrong choice of another item.

    Attributes:
        page: The number of its page.
        question: What stands before the answer.
        answer: What follows the question in the page.
        before: The segment directly before the answer.
        bag: The words of the answer.
    """

    page: int
    question: str
    answer: str
    before: str
    bag: frozenset[str]

    @property
    def length(self) -> int:
        """Characters of the answer."""
        return len(self.answer)

    @property
    def bag_with_before(self) -> frozenset[str]:
        """The words of the answer and of the segment before it."""
        return self.bag | frozenset(folded_words(self.before))


def make(
    task: str,
    pages: Sequence[HeldoutPage],
    near: Sequence[Sequence[int]],
    seen: Set[int],
    config: CollectEvalsConfig,
) -> list[dict[str, Any]]:
    """Make the items of one task, spread evenly over the pages.

    Args:
        task: One of `TASKS`.
        pages: The drawn pages.
        near: For each page the numbers of the nearest others.
        seen: Keys of segments that the model also trains on. They are not used.
        config: The settings.

    Returns:
        At most `config.max_items` rows of the items table.
    """
    candidates = _candidates(task, pages, seen, config)
    by_likeness = task != CONTINUATION
    rank_counts: Counter[int] = Counter()
    rows: list[dict[str, Any]] = []
    for candidate in _round_robin(candidates):
        if len(rows) == config.max_items:
            break
        sources = list(near[candidate.page])
        if task != CONTINUATION:  # as a continuation, sentences of the same page could be right
            sources.insert(0, candidate.page)
        others = chain.from_iterable(candidates[source] for source in sources)
        wrong = _wrong_choices(candidate, others, by_likeness, rank_counts, config)
        if wrong is not None:
            rows.append(_row(task, candidate, wrong, pages[candidate.page], config.seed))
    return rows


def _candidates(
    task: str, pages: Sequence[HeldoutPage], seen: Set[int], config: CollectEvalsConfig
) -> list[list[Candidate]]:
    """Return the candidates of each page, in an order given by the seed.

    Segments that occur more than once in the pages are boilerplate and left out.
    """
    repeated = _repeated(pages)
    found = []
    for number, page in enumerate(pages):
        candidates = []
        for before, segment in pairwise(page.segments):
            if not _is_answer(segment, config):
                continue
            answer_words = tuple(folded_words(segment.text))
            if answer_words in repeated:
                continue
            if key(segment.text) in seen or key(before.text) in seen:
                continue
            question = _question(task, page, before, segment, config.context_characters)
            if question is None:
                continue
            if task != CONTINUATION and tuple(folded_words(before.text)) in repeated:
                continue
            candidate = Candidate(
                number,
                question,
                segment.text,
                before.text,
                bag=frozenset(answer_words),
            )
            candidates.append(candidate)
        shuffled = _shuffled(task, page, candidates, config.seed)
        found.append(shuffled[:MAX_PER_PAGE])
    return found


def _repeated(pages: Sequence[HeldoutPage]) -> set[tuple[str, ...]]:
    """Return the words of each segment that occurs more than once in the pages."""
    once: set[tuple[str, ...]] = set()
    repeated: set[tuple[str, ...]] = set()
    for page in pages:
        for segment in page.segments:
            found = tuple(folded_words(segment.text))
            if found in once:
                repeated.add(found)
            once.add(found)
    return repeated


def _is_answer(segment: Segment, config: CollectEvalsConfig) -> bool:
    """Return whether a segment can be a choice."""
    length = len(segment.text)
    if not config.min_characters <= length <= config.max_characters:
        return False
    return segment.is_prose


def _shuffled(
    task: str, page: HeldoutPage, candidates: list[Candidate], seed: int
) -> list[Candidate]:
    def order(candidate: Candidate) -> int:
        return seed_for(seed, task, page.id, candidate.question, candidate.answer)

    return sorted(candidates, key=order)


def _question(
    task: str, page: HeldoutPage, before: Segment, segment: Segment, max_context: int
) -> str | None:
    """Return what stands before the answer, or None if the task makes no item here.

    Args:
        task: One of `TASKS`.
        page: The page.
        before: The segment directly before the answer.
        segment: The answer.
        max_context: Characters before a continuation, at most.
    """
    if task == CONTINUATION:
        first = segment.start - max_context
        start = next(other.start for other in page.segments if other.start >= first)
        context = page.text[start : segment.start].rstrip()
        is_usable = len(context) >= MIN_CONTEXT and segment.text not in context
        return context if is_usable else None
    is_description = task == DESCRIPTION and before.is_signature
    is_section = task == SECTION and before.is_heading
    if not is_description and not is_section:
        return None
    return f"{page.title}\n\n{before.text}" if page.title else before.text


def _wrong_choices(
    right: Candidate,
    others: Iterable[Candidate],
    by_likeness: bool,
    rank_counts: Counter[int],
    config: CollectEvalsConfig,
) -> list[str] | None:
    """Pick wrong choices that give the right one the rarest rank by length so far.

    Args:
        right: The candidate whose answer is right.
        others: Candidates for wrong choices, those of the nearest pages first.
        by_likeness: Prefer those that share most words with the right answer and its question.
        rank_counts: How often each rank was given. It is updated.
        config: The settings.

    Returns:
        The wrong choices, or None if there are not enough.
    """
    needed = config.choices - 1
    times_as_many = HARDEST_OF if by_likeness else 2
    shorter, longer = _by_length(right, others, needed * times_as_many)
    lowest = max(0, needed - len(longer))
    highest = min(needed, len(shorter))
    possible_ranks = range(lowest, highest + 1)
    if not possible_ranks:
        return None

    def rarity(rank: int) -> tuple[int, int]:
        order = seed_for(config.seed, "rank", right.question, right.answer, rank)
        return rank_counts[rank], order

    def easiness(other: Candidate) -> tuple[float, int]:
        likeness = 0.0
        if by_likeness:
            likeness = _jaccard(right_bag, other.bag_with_before)
        order = seed_for(config.seed, "wrong", right.question, right.answer, other.answer)
        return -likeness, order

    right_bag = right.bag_with_before
    rank = min(possible_ranks, key=rarity)
    rank_counts[rank] += 1
    wrong = heapq.nsmallest(rank, shorter, key=easiness)
    wrong += heapq.nsmallest(needed - rank, longer, key=easiness)
    return [other.answer for other in wrong]


def _by_length(
    right: Candidate, others: Iterable[Candidate], enough: int
) -> tuple[list[Candidate], list[Candidate]]:
    """Return the first usable candidates that are shorter, and those that are longer.

    At most `enough` of each are returned.
    """
    shorter: list[Candidate] = []
    longer: list[Candidate] = []
    for other in others:
        side = shorter if other.length < right.length else longer
        if len(side) < enough and _is_usable(right, other):
            side.append(other)
        if len(shorter) == len(longer) == enough:
            break
    return shorter, longer


def _is_usable(right: Candidate, other: Candidate) -> bool:
    """Return whether the other answer can be a wrong choice beside the right one."""
    if other.length == right.length:
        return False
    ratio = other.length / right.length
    if not 1 / LENGTH_BAND <= ratio <= LENGTH_BAND:
        return False
    if _jaccard(right.bag, other.bag) >= NEARLY_EQUAL:
        return False
    return other.answer not in right.question


def _row(
    task: str, right: Candidate, wrong: list[str], page: HeldoutPage, seed: int
) -> dict[str, Any]:
    """Return a row of the items table."""
    choices = [right.answer, *wrong]
    choices.sort(key=lambda choice: seed_for(seed, "order", right.question, choice))
    words_before = words(right.before, Words.SPACED)[-WORDS_BEFORE:]
    return {
        "id": digest(task, right.question, *choices),
        "task": task,
        "question": right.question,
        "choices": choices,
        "answer": choices.index(right.answer),
        "evidence": " ".join([*words_before, right.answer]),
        "origin": "heldout",
        "document": page.id,
        "url": page.url,
    }


def _round_robin(candidates: list[list[Candidate]]) -> Iterator[Candidate]:
    """Yield the first candidate of each page, then the second of each, and so on."""
    for layer in zip_longest(*candidates):
        for candidate in layer:
            if candidate is not None:
                yield candidate


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Return the share of common words, from 0 to 1."""
    return len(a & b) / max(len(a | b), 1)
