"""The pages that are examined, and which of them are about the same thing."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix

from data_contracts import Artifact
from stages.collect_evals.passages import Segment, segments, words
from stages.digests import seed_for

AMONG = 2000  # pages that neighbours are sought among
NEIGHBOURS = 50
BLOCK = 500


@dataclass(frozen=True)
class Page:
    """A held-out page, cut to the length that is examined."""

    id: str
    url: str
    title: str | None
    language: str
    text: str

    @cached_property
    def segments(self) -> list[Segment]:
        return segments(self.text)


def draw(documents: Artifact, count: int, characters: int, seed: int) -> list[Page]:
    """The first `count` held-out documents in hash order. Longer ones are cut at the end of a line, if there is one in the last half."""
    keep: list[tuple[int, str, Page]] = []
    for batch in documents.batches(
        "heldout", ["id", "url", "title", "language", "text"], batch_size=256
    ):
        for row in batch.to_pylist():
            text = row["text"]
            if len(text) > characters:
                line_end = text.rfind("\n", characters // 2, characters)
                text = text[: line_end if line_end > 0 else characters]
            entry = (
                -seed_for(seed, "examined", row["id"]),
                row["id"],
                Page(row["id"], row["url"], row["title"], row["language"], text),
            )
            if len(keep) < count:
                heapq.heappush(keep, entry)
            else:
                heapq.heappushpop(keep, entry)
    return [page for _, _, page in sorted(keep, key=lambda entry: (-entry[0], entry[1]))]


def neighbours(pages: Sequence[Page]) -> list[list[int]]:
    """For each page, the numbers of the nearest others of its language, nearest first.

    Cosine of tf-idf vectors (Salton & Buckley 1988), sought among the first AMONG pages.
    """
    vectors = _tf_idf(pages)
    pool = vectors[:AMONG]
    languages = np.array([page.language for page in pages])
    found: list[list[int]] = []
    for start in range(0, len(pages), BLOCK):
        block = (vectors[start : start + BLOCK] @ pool.T).toarray()
        for offset, likeness in enumerate(block):
            number = start + offset
            likeness = np.where(languages[: len(likeness)] == languages[number], likeness, -1.0)
            if number < len(likeness):
                likeness[number] = -1.0
            order = np.argsort(-np.round(likeness, 6), kind="stable")[:NEIGHBOURS]
            found.append([int(n) for n in order if likeness[n] >= 0])
    return found


def _tf_idf(pages: Sequence[Page]) -> csr_matrix:
    counts = [Counter(words(page.text)) for page in pages]
    frequency: Counter[str] = Counter()
    for count in counts:
        frequency.update(count.keys())
    column = {
        word: n
        for n, word in enumerate(
            sorted(word for word, pages_with in frequency.items() if pages_with > 1)
        )
    }
    values: list[float] = []
    columns: list[int] = []
    ends = [0]
    for count in counts:
        mine = {
            column[word]: (1 + np.log(n)) * np.log(len(pages) / frequency[word])
            for word, n in sorted(count.items())
            if word in column
        }
        norm = np.sqrt(sum(value * value for value in mine.values())) or 1.0
        columns += mine.keys()
        values += [value / norm for value in mine.values()]
        ends.append(len(values))
    return csr_matrix((values, columns, ends), shape=(len(pages), max(len(column), 1)))
