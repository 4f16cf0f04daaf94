"""The pages that items are made of, and which of them are about the same subject."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from data_contracts import Artifact
from stages.collect_evals.passages import Segment, folded_words, segments
from stages.text.heldout import first_by_hash

MAX_POOL = 2000  # pages among which neighbours are searched
NEIGHBOURS = 50
BLOCK = 500
COLUMNS = ("id", "url", "title", "language", "text")


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
    """Draw held-out documents: the first `count` in the order of their hashes.

    Args:
        documents: The artifact with a table `heldout`.
        count: How many to draw.
        max_characters: Longer pages are cut at the end of a line, if one lies in the last half.
        seed: The seed of the hashes.
    """
    pages = _pages(documents, max_characters)
    return first_by_hash(pages, count, seed, "examined", lambda page: page.id)


def _pages(documents: Artifact, max_characters: int) -> Iterator[HeldoutPage]:
    for batch in documents.batches("heldout", COLUMNS, batch_size=256):
        for row in batch.to_pylist():
            yield _cut_page(row, max_characters)


def _cut_page(row: dict[str, Any], max_characters: int) -> HeldoutPage:
    text = row["text"]
    if len(text) > max_characters:
        line_end = text.rfind("\n", max_characters // 2, max_characters)
        text = text[: line_end if line_end > 0 else max_characters]
    return HeldoutPage(row["id"], row["url"], row["title"], row["language"], text)


def neighbours(pages: Sequence[HeldoutPage]) -> list[list[int]]:
    """Find the pages of the same language that are most like each page.

    Similarity is the cosine of tf-idf vectors (Salton & Buckley 1988). Neighbours are searched
    among the first `MAX_POOL` pages.

    Args:
        pages: The drawn pages.

    Returns:
        For each page the numbers of at most `NEIGHBOURS` others, nearest first.
    """
    vectors = _tf_idf(pages)
    pool = vectors[:MAX_POOL]
    languages = np.array([page.language for page in pages])
    found: list[list[int]] = []
    for start in range(0, len(pages), BLOCK):
        block = vectors[start : start + BLOCK]
        similarities = (block @ pool.T).toarray()
        for number, of_page in enumerate(similarities, start=start):
            nearest = _nearest(number, of_page, languages)
            found.append(nearest)
    return found


def _nearest(
    number: int,
    similarities: npt.NDArray[np.float64],
    languages: npt.NDArray[np.str_],
) -> list[int]:
    """Return the pages most like the page with this number, without the page itself.

    Args:
        number: Number of the page.
        similarities: To each page of the pool, shape [pool].
        languages: Of all pages, shape [pages].
    """
    has_same_language = languages[: len(similarities)] == languages[number]
    similarities = np.where(has_same_language, similarities, -1.0)
    if number < len(similarities):
        similarities[number] = -1.0
    order = np.argsort(-np.round(similarities, 6), kind="stable")
    nearest = order[:NEIGHBOURS]
    return nearest[similarities[nearest] >= 0].tolist()


def _tf_idf(pages: Sequence[HeldoutPage]) -> csr_matrix:
    """Return one normalized row per page. Words that only one page has are left out."""
    counts = [Counter(folded_words(page.text)) for page in pages]
    pages_with: Counter[str] = Counter()
    for count in counts:
        pages_with.update(count.keys())
    shared_words = sorted(word for word, number in pages_with.items() if number > 1)
    column_of = {word: column for column, word in enumerate(shared_words)}
    weights = {}
    for word in shared_words:
        weights[word] = np.log(len(pages) / pages_with[word])
    values: list[float] = []
    columns: list[int] = []
    row_ends = [0]
    for count in counts:
        row = _weighted(count, weights)
        values += row.values()
        columns += map(column_of.__getitem__, row)
        row_ends.append(len(values))
    shape = (len(pages), max(len(column_of), 1))
    return csr_matrix((values, columns, row_ends), shape=shape)


def _weighted(count: Counter[str], weights: Mapping[str, float]) -> dict[str, float]:
    """Return the weight of each shared word of a page, in alphabetical order; squares sum to 1.

    Args:
        count: Occurrences of each word of the page.
        weights: The inverse document frequency of each shared word.
    """
    row: dict[str, float] = {}
    for word, occurrences in sorted(count.items()):
        if word in weights:
            row[word] = (1 + np.log(occurrences)) * weights[word]
    norm = np.sqrt(sum(value * value for value in row.values())) or 1.0
    for word in row:
        row[word] /= norm
    return row
