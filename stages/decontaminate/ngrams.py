"""Finds word n-grams of evaluation items in documents: by hash first, then by the words themselves.

Words are those of `Words.FOLDED`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.text.ngrams import Hashes, WordHashes, ngram_hashes
from stages.text.words import Words, words

Ngram = tuple[str, ...]


@dataclass(frozen=True)
class NgramIndex:
    """All n-grams of all items, G of them.

    Attributes:
        hashes: Sorted, shape [G]; equal hashes are next to each other.
        grams: The words of each n-gram, in the order of `hashes`.
        owners: The items that each n-gram belongs to, in the order of the items.
        lengths: The lengths of n-grams that occur.
    """

    hashes: Hashes
    grams: list[Ngram]
    owners: list[list[int]]
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, evidence: Sequence[str], ngram: int, shortest: int) -> NgramIndex:
        """Build the index of the items' texts.

        Args:
            evidence: One text per item.
            ngram: Words in an n-gram. A text with fewer words counts as a whole.
            shortest: Words below which a text does not count at all.
        """
        owners = _owners(evidence, ngram, shortest)
        word_hashes = WordHashes()
        hashed: list[tuple[int, Ngram]] = []
        for gram in owners:
            (gram_hash,) = ngram_hashes(word_hashes.of(gram), len(gram))
            hashed.append((int(gram_hash), gram))
        hashed.sort()
        grams = [gram for _, gram in hashed]
        return cls(
            hashes=np.array([gram_hash for gram_hash, _ in hashed], np.uint64),
            grams=grams,
            owners=[owners[gram] for gram in grams],
            lengths=tuple(sorted(set(map(len, grams)))),
        )

    def hits(self, text: str, word_hashes: WordHashes) -> list[int]:
        """Find n-grams in a text.

        Args:
            text: The text of a document.
            word_hashes: The hashes of words that were seen before.

        Returns:
            The number of each n-gram that the text contains, in the order of their first
            occurrence.
        """
        found = words(text, Words.FOLDED)
        hashes_of_words = word_hashes.of(found)
        last = len(self.hashes) - 1
        first_position: dict[int, int] = {}
        for length in self.lengths:
            hashes = ngram_hashes(hashes_of_words, length)
            numbers = np.searchsorted(self.hashes, hashes)
            candidates = self.hashes[np.minimum(numbers, last)]
            for start in np.flatnonzero(candidates == hashes).tolist():
                gram = tuple(found[start : start + length])
                number = self._number_of(gram, int(numbers[start]))
                if number is not None:
                    first_position.setdefault(number, start)

        def position(number: int) -> tuple[int, int]:
            return first_position[number], number

        return sorted(first_position, key=position)

    def _number_of(self, gram: Ngram, first: int) -> int | None:
        """Return the number of an n-gram among those that have the hash of number `first`."""
        number = first
        while number < len(self.hashes):
            if self.hashes[number] != self.hashes[first]:
                break
            if self.grams[number] == gram:
                return number
            number += 1
        return None


def _owners(evidence: Sequence[str], ngram: int, shortest: int) -> dict[Ngram, list[int]]:
    """Return the items that each n-gram occurs in."""
    owners: dict[Ngram, list[int]] = {}
    for item, text in enumerate(evidence):
        found = words(text, Words.FOLDED)
        length = min(ngram, len(found))
        if length < shortest:
            continue
        for start in range(len(found) - length + 1):
            gram = tuple(found[start : start + length])
            items = owners.setdefault(gram, [])
            if not items or items[-1] != item:
                items.append(item)
    return owners
