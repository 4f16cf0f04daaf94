"""Hashes of words and of word n-grams: 64 bits each.

The hash of an n-gram is mixed from the hashes of its words. So each distinct word is hashed once,
and an n-gram never becomes a string.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash

Hashes = npt.NDArray[np.uint64]

MAX_WORDS = 1 << 20  # that are remembered
MAX_WORD_CHARS = 64  # longer words seldom occur twice, and would fill the memory
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplication loses nothing


def text_hash(text: str) -> int:
    """Hash a text to 64 bits."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


class WordHashes(dict[str, int]):
    """Word → its hash, computed once. A dict looks it up in C for every word of every text.

    When it is full, it starts again from nothing: the words of a corpus change along the way.

    Args:
        max_words: Number of words to remember.
    """

    def __init__(self, max_words: int = MAX_WORDS):
        super().__init__()
        self._max_words = max_words

    def __missing__(self, word: str) -> int:
        value = text_hash(word)
        if len(word) > MAX_WORD_CHARS:
            return value
        if len(self) >= self._max_words:
            self.clear()
        self[word] = value
        return value

    def of(self, words: Sequence[str]) -> Hashes:
        """Return the hash of each word, shape [words]."""
        return np.fromiter(map(self.__getitem__, words), np.uint64, len(words))


def hashes_within(words: Sequence[str]) -> Hashes:
    """Hash the words of one text: equal words have equal hashes there, and there alone.

    This is faster than `WordHashes`, whose words lie all over the memory.

    Args:
        words: The words of the text.

    Returns:
        Shape [words].
    """
    numbers: dict[str, int] = {}
    numbered = (numbers.setdefault(word, len(numbers)) for word in words)
    return _scattered(np.fromiter(numbered, np.uint64, len(words)))


def _scattered(numbers: Hashes) -> Hashes:
    """Apply SplitMix64's finalizer (Steele et al. 2014): close numbers become unrelated."""
    x = (numbers + np.uint64(1)) * _FACTOR
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def ngram_hashes(word_hashes: Hashes, n: int) -> Hashes:
    """Hash every run of `n` consecutive words.

    Args:
        word_hashes: The hash of each word, shape [words].
        n: Words of an n-gram, at least 1.

    Returns:
        Shape [max(words - n + 1, 0)].
    """
    count = max(len(word_hashes) - n + 1, 0)
    hashes = word_hashes[:count].copy()
    for offset in range(1, n):
        # The product wraps around at 64 bits, as intended.
        hashes *= _FACTOR
        hashes += word_hashes[offset : offset + count]
    return hashes


def longer_ngrams(hashes: Hashes, word_hashes: Hashes) -> Hashes:
    """Make hashes of n-grams from those of n-grams that are one word shorter.

    Args:
        hashes: Hashes of the shorter n-grams, shape [words - n + 1], at least one.
        word_hashes: The hash of each word, shape [words].

    Returns:
        Shape [words - n].
    """
    n = len(word_hashes) - len(hashes) + 1
    return hashes[:-1] * _FACTOR + word_hashes[n:]
