"""Word n-grams of evaluation items, and finding them in documents: hashes first, then the words themselves.

Where a script has no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese), each character counts as a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

_SPACELESS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_WORD = re.compile(rf"[{_SPACELESS}]|[^\W_{_SPACELESS}]+")
REMEMBERED = 1 << 20  # words
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplication loses nothing


def words(text: str) -> list[str]:
    """Words in normal form: compatibility forms and case folded, punctuation dropped."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _WORD.findall(text.casefold())


class WordHashes(dict[str, int]):
    """Word → its 64-bit hash, remembered."""

    def __missing__(self, word: str) -> int:
        value = xxhash.xxh3_64_intdigest(word.encode())
        if len(self) < REMEMBERED:
            self[word] = value
        return value

    def of(self, found: Sequence[str]) -> np.ndarray:
        return np.fromiter(map(self.__getitem__, found), np.uint64, len(found))


def window_hashes(hashes: np.ndarray, length: int) -> np.ndarray:
    """Hash of every `length` words in a row, from the 64-bit hash of each word; shape [max(words - length + 1, 0)]."""
    count = len(hashes) - length + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    found = np.zeros(count, np.uint64)
    for offset in range(length):
        found = found * _FACTOR + hashes[offset : offset + count]
    return found


@dataclass(frozen=True)
class Index:
    """All n-grams of all items. The n-gram number g is grams[g]; it belongs to the items owners[g], the first in their order first.

    hashes: sorted, shape [G], and equal hashes stand next to each other. lengths: the lengths of n-grams that occur.
    """

    hashes: np.ndarray
    grams: list[tuple[str, ...]]
    owners: list[list[int]]
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, evidence: Sequence[str], ngram: int, shortest: int) -> Index:
        """Index of the items' texts. A text of fewer than `ngram` words counts whole; of fewer than `shortest`, not at all."""
        owners: dict[tuple[str, ...], list[int]] = {}
        for item, text in enumerate(evidence):
            found = words(text)
            length = min(ngram, len(found))
            if length < shortest:
                continue
            for start in range(len(found) - length + 1):
                belongs = owners.setdefault(tuple(found[start : start + length]), [])
                if not belongs or belongs[-1] != item:
                    belongs.append(item)
        cache = WordHashes()
        keyed = sorted((int(window_hashes(cache.of(gram), len(gram))[0]), gram) for gram in owners)
        grams = [gram for _, gram in keyed]
        lengths = tuple(sorted({len(gram) for gram in grams}))
        return cls(
            np.array([h for h, _ in keyed], np.uint64),
            grams,
            [owners[gram] for gram in grams],
            lengths,
        )

    def hits(self, text: str, cache: WordHashes) -> list[int]:
        """Numbers of the n-grams that `text` holds, each once, in the order of their first occurrence."""
        found = words(text)
        hashes = cache.of(found)
        places: dict[int, int] = {}
        for length in self.lengths:
            windows = window_hashes(hashes, length)
            at = np.searchsorted(self.hashes, windows)
            matched = np.flatnonzero(self.hashes[np.minimum(at, len(self.hashes) - 1)] == windows)
            for start in matched.tolist():
                number = int(at[start])
                gram = tuple(found[start : start + length])
                while number < len(self.hashes) and self.hashes[number] == windows[start]:
                    if self.grams[number] == gram:
                        places.setdefault(number, start)
                    number += 1
        return sorted(places, key=lambda number: (places[number], number))
