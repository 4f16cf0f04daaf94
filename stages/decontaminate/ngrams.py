"""Finds word n-grams of evaluation items in documents: by hash first, then by the words themselves.

In scripts without spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese), each
character counts as a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

_SPACELESS = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff"
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
)
_WORD = re.compile(rf"[{_SPACELESS}]|[^\W_{_SPACELESS}]+")
MAX_CACHED_WORDS = 1 << 20
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplication loses nothing

Ngram = tuple[str, ...]
Hashes = npt.NDArray[np.uint64]


def words(text: str) -> list[str]:
    """Splits a text into words: case and compatibility forms folded, punctuation dropped."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _WORD.findall(text.casefold())


class WordHashes(dict[str, int]):
    """Word → its 64-bit hash, cached."""

    def __missing__(self, word: str) -> int:
        value = xxhash.xxh3_64_intdigest(word.encode())
        if len(self) < MAX_CACHED_WORDS:
            self[word] = value
        return value

    def of(self, found: Sequence[str]) -> Hashes:
        """Returns the hash of each word, shape [words]."""
        return np.fromiter(map(self.__getitem__, found), np.uint64, len(found))


def window_hashes(hashes: Hashes, length: int) -> Hashes:
    """Hashes every run of `length` consecutive words.

    Args:
        hashes: The 64-bit hash of each word, shape [words].
        length: Words in a window.

    Returns:
        Hashes of shape [max(words - length + 1, 0)].
    """
    count = len(hashes) - length + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    result = np.zeros(count, np.uint64)
    for offset in range(length):
        result = result * _FACTOR + hashes[offset : offset + count]
    return result


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
        """Builds the index of the items' texts.

        Args:
            evidence: One text per item.
            ngram: Words in an n-gram. A text with fewer words counts as a whole.
            shortest: Words below which a text does not count at all.
        """
        owners = _owners(evidence, ngram, shortest)
        word_hashes = WordHashes()
        hashed: list[tuple[int, Ngram]] = []
        for gram in owners:
            (window,) = window_hashes(word_hashes.of(gram), len(gram))
            hashed.append((int(window), gram))
        hashed.sort()
        hashes = np.array([window for window, _ in hashed], np.uint64)
        grams = [gram for _, gram in hashed]
        lengths = {len(gram) for gram in grams}
        return cls(hashes, grams, [owners[gram] for gram in grams], tuple(sorted(lengths)))

    def hits(self, text: str, word_hashes: WordHashes) -> list[int]:
        """Finds n-grams in a text.

        Returns:
            The number of each n-gram that the text contains, in the order of their first
            occurrence.
        """
        found = words(text)
        hashes = word_hashes.of(found)
        first_position: dict[int, int] = {}
        for length in self.lengths:
            windows = window_hashes(hashes, length)
            numbers = np.searchsorted(self.hashes, windows)
            candidates = self.hashes[np.minimum(numbers, len(self.hashes) - 1)]
            for start in np.flatnonzero(candidates == windows).tolist():
                gram = tuple(found[start : start + length])
                number = self._number_of(gram, int(numbers[start]))
                if number is not None:
                    first_position.setdefault(number, start)
        return sorted(first_position, key=lambda number: (first_position[number], number))

    def _number_of(self, gram: Ngram, first: int) -> int | None:
        """The number of an n-gram among those that have the hash of number `first`."""
        number = first
        while number < len(self.hashes) and self.hashes[number] == self.hashes[first]:
            if self.grams[number] == gram:
                return number
            number += 1
        return None


def _owners(evidence: Sequence[str], ngram: int, shortest: int) -> dict[Ngram, list[int]]:
    """The items that each n-gram occurs in."""
    owners: dict[Ngram, list[int]] = {}
    for item, text in enumerate(evidence):
        found = words(text)
        length = min(ngram, len(found))
        if length < shortest:
            continue
        for start in range(len(found) - length + 1):
            gram = tuple(found[start : start + length])
            items = owners.setdefault(gram, [])
            if not items or items[-1] != item:
                items.append(item)
    return owners
