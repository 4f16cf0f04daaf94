"""The pages that items are made of, and which of them are about the same subject."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from data_contracts import Artifact
from stages.collect_evals.passages import Segment, segments, words
from stages.digests import seed_for

MAX_POOL = 2000  # pages among which neighbours are searched
NEIGHBOURS = 50
BLOCK = 500


@dataclass(frozen=True)
class HeldoutPage:
    """A held-out page, cut to the maximum length."""

    id: str
    url: str
    title: str | None
    language: str
    text: str

    @cached_property
    def segments(self) -> list[Segment]:
        """The sentences and other lines of the page."""
        return segments(self.text)


def draw(documents: Artifact, count: int, max_characters: int, seed: int) -> list[HeldoutPage]:
    """Draws held-out documents: the first `count` in the order of their hashes.

    Args:
        documents: The artifact with a table `heldout`.
        count: How many to draw.
        max_characters: Longer pages are cut at the end of a line, if one lies in the last half.
        seed: The seed of the hashes.
    """
    # A heap of the smallest hashes. They are negative because heapq keeps the largest entries.
    kept: list[tuple[int, str, HeldoutPage]] = []
    columns = ["id", "url", "title", "language", "text"]
    for batch in documents.batches("heldout", columns, batch_size=256):
        for row in batch.to_pylist():
            page = _cut_page(row, max_characters)
            entry = (-seed_for(seed, "examined", page.id), page.id, page)
            if len(kept) < count:
                heapq.heappush(kept, entry)
            else:
                heapq.heappushpop(kept, entry)
    kept.sort(key=lambda entry: (-entry[0], entry[1]))
    return [page for _, _, page in kept]


def _cut_page(row: dict[str, Any], max_characters: int) -> HeldoutPage:
    text = row["text"]
    if len(text) > max_characters:
        line_end = text.rfind("\n", max_characters // 2, max_characters)
        text = text[: line_end if line_end > 0 else max_characters]
    return HeldoutPage(row["id"], row["url"], row["title"], row["language"], text)


def neighbours(pages: Sequence[HeldoutPage]) -> list[list[int]]:
    """Finds the pages of the same language that are most like each page.

    Similarity is the cosine of tf-idf vectors (Salton & Buckley 1988). Neighbours are searched
    among the first `MAX_POOL` pages.

    Returns:
        For each page the numbers of at most `NEIGHBOURS` others, nearest first.
    """
    vectors = _tf_idf(pages)
    pool = vectors[:MAX_POOL]
    languages = np.array([page.language for page in pages])
    found: list[list[int]] = []
    for start in range(0, len(pages), BLOCK):
        block = (vectors[start : start + BLOCK] @ pool.T).toarray()
        for number, similarities in enumerate(block, start=start):
            has_same_language = languages[: len(similarities)] == languages[number]
            similarities = np.where(has_same_language, similarities, -1.0)
            if number < len(similarities):
                similarities[number] = -1.0  # the page itself
            order = np.argsort(-np.round(similarities, 6), kind="stable")[:NEIGHBOURS]
            found.append([int(other) for other in order if similarities[other] >= 0])
    return found


def _tf_idf(pages: Sequence[HeldoutPage]) -> csr_matrix:
    """Returns one normalized row per page. Words that only one page has are left out."""
    counts = [Counter(words(page.text)) for page in pages]
    pages_with: Counter[str] = Counter()
    for count in counts:
        pages_with.update(count.keys())
    shared_words = sorted(word for word, number in pages_with.items() if number > 1)
    column_of = {word: column for column, word in enumerate(shared_words)}
    values: list[float] = []
    columns: list[int] = []
    row_ends = [0]
    for count in counts:
        row: dict[int, float] = {}
        for word, occurrences in sorted(count.items()):
            if word in column_of:
                inverse_frequency = np.log(len(pages) / pages_with[word])
                row[column_of[word]] = (1 + np.log(occurrences)) * inverse_frequency
        norm = np.sqrt(sum(value * value for value in row.values())) or 1.0
        columns += row.keys()
        values += [value / norm for value in row.values()]
        row_ends.append(len(values))
    shape = (len(pages), max(len(column_of), 1))
    return csr_matrix((values, columns, row_ends), shape=shape)
