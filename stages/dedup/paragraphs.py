"""Paragraph deduplication as in CCNet (Wenzek et al. 2020, arXiv 1911.00359, section 3.1).

Near-duplicate documents are removed whole. What different documents share, such as an inherited
method or a licence notice, is removed here. The first of equal paragraphs stays: those of train
come before those of heldout, then the order is by document id. So held-out documents keep only what
no training document says. A blank line ends a paragraph. Paragraphs shorter than the bound, such as
headings, stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.text.ngrams import Hashes, text_hash
from stages.text.words import Folding, folded

_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")


@dataclass(frozen=True)
class Paragraphs:
    """The paragraphs of N documents, document after document; P of them are long enough to remove.

    Attributes:
        hashes: Of each long paragraph, regardless of case and white space, shape [P].
        counts: Number of long paragraphs of each document, shape [N].
        short: Number of paragraphs of each document that stay in any case, shape [N].
    """

    hashes: Hashes
    counts: npt.NDArray[np.int64]
    short: npt.NDArray[np.int64]

    @classmethod
    def of(cls, texts: pa.Array, min_chars: int) -> Paragraphs:
        """Find the paragraphs of `texts`.

        Args:
            texts: One text per document.
            min_chars: Shortest paragraph that may be removed. If 0, no paragraph is looked for.
        """
        if not min_chars:
            none = np.zeros(len(texts), np.int64)
            return cls(np.zeros(0, np.uint64), none, none)
        hashes: list[int] = []
        counts: list[int] = []
        short: list[int] = []
        for text in texts.to_pylist():
            paragraphs = _split(text)
            long = [paragraph for paragraph in paragraphs if len(paragraph) >= min_chars]
            hashes += map(_paragraph_hash, long)
            counts.append(len(long))
            short.append(len(paragraphs) - len(long))
        return cls(
            np.array(hashes, np.uint64),
            np.array(counts, np.int64),
            np.array(short, np.int64),
        )

    @classmethod
    def joined(cls, parts: Iterable[Paragraphs]) -> Paragraphs:
        """Join the paragraphs of consecutive documents."""
        hashes: list[Hashes] = []
        counts: list[npt.NDArray[np.int64]] = []
        short: list[npt.NDArray[np.int64]] = []
        for part in parts:
            hashes.append(part.hashes)
            counts.append(part.counts)
            short.append(part.short)
        return cls(
            np.concatenate(hashes),
            np.concatenate(counts),
            np.concatenate(short),
        )

    def repeated(self, rank: npt.NDArray[np.int64]) -> RepeatedParagraphs:
        """Find the paragraphs that an earlier document already has.

        Args:
            rank: Position of each document in the order in which paragraphs are claimed, shape [N].
                Documents with a negative rank take no part: they lose nothing and claim nothing.
        """
        rank_P = np.repeat(rank, self.counts)
        taking_part = np.flatnonzero(rank_P >= 0)
        keys = (taking_part, rank_P[taking_part], self.hashes[taking_part])
        order = taking_part[np.lexsort(keys)]
        sorted_hashes = self.hashes[order]
        is_removed = np.zeros(len(self.hashes), bool)
        is_removed[order[1:]] = sorted_hashes[1:] == sorted_hashes[:-1]
        starts = _cumulated(self.counts)
        removed_before = _cumulated(is_removed)
        lost = removed_before[starts[1:]] - removed_before[starts[:-1]]
        keeps_none = (lost == self.counts) & (self.short == 0)
        is_empty = keeps_none & (lost > 0)
        return RepeatedParagraphs(is_removed, starts, is_empty)


@dataclass(frozen=True)
class RepeatedParagraphs:
    """Which of the P long paragraphs of N documents are removed.

    Attributes:
        is_removed: Shape [P].
        starts: Where the paragraphs of each document begin, and the end, shape [N + 1].
        is_empty: Whether nothing would be left of a document, shape [N].
    """

    is_removed: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int64]
    is_empty: npt.NDArray[np.bool_]

    def cut(self, texts: pa.ChunkedArray, first: int, min_chars: int) -> pa.Array:
        """Remove repeated paragraphs from consecutive documents.

        A text of which nothing would be left stays as it is.

        Args:
            texts: The texts of the documents.
            first: Number of the first of these documents.
            min_chars: Shortest paragraph that may be removed.
        """
        cut_texts = []
        for document, text in enumerate(texts.to_pylist(), start=first):
            cut_texts.append(self._cut(text, document, min_chars))
        return pa.array(cut_texts, texts.type)

    def _cut(self, text: str, document: int, min_chars: int) -> str:
        first = self.starts[document]
        end = self.starts[document + 1]
        is_removed = self.is_removed[first:end]
        if not is_removed.any() or self.is_empty[document]:
            return text
        kept = []
        long = 0  # paragraphs so far that are long enough to remove
        for paragraph in _split(text):
            if len(paragraph) < min_chars:
                kept.append(paragraph)
                continue
            if not is_removed[long]:
                kept.append(paragraph)
            long += 1
        return "\n\n".join(kept)


def _cumulated(counts: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the sum of all values before each one, and at the end that of all of them."""
    return np.concatenate([[0], np.cumsum(counts)])


def _split(text: str) -> list[str]:
    parts = _BLANK_LINES.split(text)
    return [paragraph for paragraph in parts if not paragraph.isspace()]


def _paragraph_hash(paragraph: str) -> int:
    compared = folded(paragraph, Folding.LOWER)
    return text_hash(" ".join(compared.split()))
