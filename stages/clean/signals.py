"""The signals that the quality rules judge by: one pass over a text, linear in its length.

Definitions follow Rae et al. 2021 (Gopher, arXiv 2112.11446, A1), Raffel et al. 2020 (C4) and
Penedo et al. 2024 (FineWeb). Words are runs of non-space characters. In scripts without spaces
(Chinese, Japanese, Thai and the like) every character is a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SHORT_LINE = 30  # characters (FineWeb)
TERMINAL = (".", "!", "?", '"', "'", "”", "’", "。", "！", "？", "؟", "।", "…")

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
_HAS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_WORDS_UNSPACED = re.compile(f"[{_UNSPACED}]|[^\\s{_UNSPACED}]+")
_LETTER = re.compile(r"[^\W\d_]")
_ASCII_LETTER = re.compile("[A-Za-z]")
_BULLET = ("•", "‣", "▪", "●", "○", "◦", "·", "* ", "- ", "– ", "— ", "+ ")
_ELLIPSIS = ("...", "…")
_SENTENCE_END = re.compile(r"""[.!?]["'”’)\]]*(?=\s|$)""")
_OTHER_SENTENCE_END = re.compile("[。！？؟।]")
_PARAGRAPH = re.compile(r"\n\s*\n")
_EDGES = ".,;:!?\"'()[]{}<>“”‘’"

_TOP_NGRAMS = (2, 3, 4)
_DUPLICATE_NGRAMS = (5, 10)

Codes = npt.NDArray[np.uint64]
Lengths = npt.NDArray[np.int64]


def measure(text: str, stop_words: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures all signals of a non-empty text.

    Args:
        text: A non-empty text.
        stop_words: The stop words of its language; None leaves that signal null.

    Returns:
        Signals by column name of the contract. Signals that need words are left out if there are
        none.
    """
    words = words_of(text)
    count = len(words)
    lines = _not_blank(text.split("\n"))
    signals: dict[str, Any] = {"words": count, **_line_signals(lines), **_ngram_signals(words)}
    if not count:
        return signals
    paragraphs = _not_blank(_PARAGRAPH.split(text))
    ellipses = text.count("...") + text.count("…")
    signals |= {
        "mean_word_length": sum(map(len, words)) / count,
        "alpha_words_ratio": sum(map(_has_letter, words)) / count,
        "symbol_word_ratio": max(text.count("#"), ellipses) / count,
        "stop_words": None if stop_words is None else _distinct_stop_words(words, stop_words),
        "duplicate_paragraphs_ratio": 1 - len(set(paragraphs)) / len(paragraphs),
        "newline_word_ratio": text.count("\n") / count,
        "sentences": _sentences(text),
    }
    return signals


def words_of(text: str) -> list[str]:
    """Splits a text into words; see the top of this file for what a word is."""
    if text.isascii() or not _HAS_UNSPACED.search(text):
        return text.split()
    return _WORDS_UNSPACED.findall(text)


def _not_blank(parts: Iterable[str]) -> list[str]:
    """The parts without surrounding white space, except those that are empty then."""
    stripped = [part.strip() for part in parts]
    return [part for part in stripped if part]


def _has_letter(word: str) -> bool:
    if word.isalpha():
        return True
    letter = _ASCII_LETTER if word.isascii() else _LETTER
    return letter.search(word) is not None


def _sentences(text: str) -> int:
    count = len(_SENTENCE_END.findall(text))
    if not text.isascii():
        count += len(_OTHER_SENTENCE_END.findall(text))
    return count


def _distinct_stop_words(words: Sequence[str], stop_words: Sequence[str]) -> int:
    wanted = set(stop_words)
    found = set()
    for word in set(words):
        bare = word.strip(_EDGES).lower()
        if bare in wanted:
            found.add(bare)
    return len(found)


def _line_signals(lines: Sequence[str]) -> dict[str, float]:
    """Shares among the lines that are not blank."""
    if not lines:
        return {}
    count = len(lines)
    chars = sum(map(len, lines))
    distinct = set(lines)
    return {
        "bullet_lines_ratio": sum(line.startswith(_BULLET) for line in lines) / count,
        "ellipsis_lines_ratio": sum(line.endswith(_ELLIPSIS) for line in lines) / count,
        "duplicate_lines_ratio": 1 - len(distinct) / count,
        "duplicate_lines_chars_ratio": 1 - sum(map(len, distinct)) / chars,
        "line_punctuation_ratio": sum(line.endswith(TERMINAL) for line in lines) / count,
        "short_lines_ratio": sum(len(line) <= SHORT_LINE for line in lines) / count,
    }


def _ngram_signals(words: Sequence[str]) -> dict[str, float]:
    """Shares of the words' characters that lie in repeated n-grams.

    An n-gram is identified by a 64-bit hash of its words.
    """
    signals = {f"top_{n}gram_ratio": 0.0 for n in _TOP_NGRAMS}
    signals |= {f"duplicate_{n}gram_ratio": 0.0 for n in _DUPLICATE_NGRAMS}
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    ends = np.concatenate([[0], np.cumsum(lengths)])
    word_codes = _word_codes(words)
    codes = word_codes
    for n in range(2, min(10, len(words)) + 1):
        # The product wraps around at 64 bits, as intended.
        codes = codes[:-1] * np.uint64(0x9E3779B97F4A7C15) + word_codes[n - 1 :]
        if n in _TOP_NGRAMS:
            signals[f"top_{n}gram_ratio"] = _top_share(codes, ends, n)
        elif n in _DUPLICATE_NGRAMS:
            signals[f"duplicate_{n}gram_ratio"] = _duplicate_share(codes, lengths, n)
    return signals


def _word_codes(words: Sequence[str]) -> Codes:
    """A 64-bit code per word, shape [words]; equal words have equal codes."""
    numbers: dict[str, int] = {}
    numbered = (numbers.setdefault(word, len(numbers)) for word in words)
    return _scattered(np.fromiter(numbered, np.uint64, len(words)))


def _scattered(numbers: Codes) -> Codes:
    """SplitMix64's finalizer (Steele et al. 2014): close numbers become unrelated codes."""
    x = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _top_share(codes: Codes, ends: Lengths, n: int) -> float:
    """Share of characters in the most frequent n-gram, or 0 if none occurs twice.

    Among n-grams that are equally frequent, the longest counts.

    Args:
        codes: Code of the n-gram that begins with each word, shape [words - n + 1].
        ends: Characters before each word and at the end, shape [words + 1].
        n: Words in an n-gram.
    """
    _, first, counts = np.unique(codes, return_index=True, return_counts=True)
    top = int(counts.max())
    if top == 1:
        return 0.0
    starts = first[counts == top]
    longest = (ends[starts + n] - ends[starts]).max()
    return min(float(top * longest / ends[-1]), 1.0)


def _duplicate_share(codes: Codes, lengths: Lengths, n: int) -> float:
    """Share of characters in n-grams that occurred before.

    A character counts once, even if several of these n-grams cover it.

    Args:
        codes: Code of the n-gram that begins with each word, shape [words - n + 1].
        lengths: Characters of each word, shape [words].
        n: Words in an n-gram.
    """
    _, first = np.unique(codes, return_index=True)
    if len(first) == len(codes):
        return 0.0
    is_repeated = np.ones(len(codes), bool)
    is_repeated[first] = False
    starts = np.flatnonzero(is_repeated)
    # How many repeated n-grams begin, less how many end, at each word.
    edges = np.zeros(len(lengths) + 1, np.int64)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + n, -1)
    is_covered = np.cumsum(edges[:-1]) > 0
    return float(lengths[is_covered].sum() / lengths.sum())
