"""What the quality rules are decided by: one pass over a text, linear in its length.

Definitions follow Rae et al. 2021 (Gopher, arXiv 2112.11446, A1), Raffel et al. 2020 (C4) and Penedo et al. 2024 (FineWeb).
Words are runs of non-space characters; in Chinese, Japanese and Thai-like scripts, which write no spaces, single characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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

Codes = npt.NDArray[np.uint64]
Lengths = npt.NDArray[np.int64]


def measure(text: str, stop_words: Sequence[str] | None = None) -> dict[str, Any]:
    """All signals of a non-empty text, by the column names of the contract. stop_words None: that signal is null."""
    words = words_of(text)
    count = len(words)
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
    signals: dict[str, Any] = {"words": count, **_line_signals(lines), **_ngram_signals(words)}
    if not count:
        return signals
    paragraphs = [stripped for part in _PARAGRAPH.split(text) if (stripped := part.strip())]
    ellipses = text.count("...") + text.count("…")
    return signals | {
        "mean_word_length": sum(map(len, words)) / count,
        "alpha_words_ratio": sum(map(_has_letter, words)) / count,
        "symbol_word_ratio": max(text.count("#"), ellipses) / count,
        "stop_words": None if stop_words is None else _distinct_stop_words(words, stop_words),
        "duplicate_paragraphs_ratio": 1 - len(set(paragraphs)) / len(paragraphs),
        "newline_word_ratio": text.count("\n") / count,
        "sentences": len(_SENTENCE_END.findall(text))
        + (0 if text.isascii() else len(_OTHER_SENTENCE_END.findall(text))),
    }


def words_of(text: str) -> list[str]:
    if text.isascii() or not _HAS_UNSPACED.search(text):
        return text.split()
    return _WORDS_UNSPACED.findall(text)


def _has_letter(word: str) -> bool:
    return word.isalpha() or (_ASCII_LETTER if word.isascii() else _LETTER).search(word) is not None


def _distinct_stop_words(words: Sequence[str], stop_words: Sequence[str]) -> int:
    wanted, found = set(stop_words), set()
    for word in set(words):
        bare = word.strip(_EDGES).lower()
        if bare in wanted:
            found.add(bare)
    return len(found)


def _line_signals(lines: Sequence[str]) -> dict[str, float]:
    """Shares over the lines that are not blank."""
    if not lines:
        return {}
    chars = sum(map(len, lines))
    distinct = set(lines)
    return {
        "bullet_lines_ratio": sum(line.startswith(_BULLET) for line in lines) / len(lines),
        "ellipsis_lines_ratio": sum(line.endswith(_ELLIPSIS) for line in lines) / len(lines),
        "duplicate_lines_ratio": 1 - len(distinct) / len(lines),
        "duplicate_lines_chars_ratio": 1 - sum(map(len, distinct)) / chars,
        "line_punctuation_ratio": sum(line.endswith(TERMINAL) for line in lines) / len(lines),
        "short_lines_ratio": sum(len(line) <= SHORT_LINE for line in lines) / len(lines),
    }


def _ngram_signals(words: Sequence[str]) -> dict[str, float]:
    """Shares of the words' characters that lie in repeated n-grams. An n-gram is known by a 64-bit hash of its words."""
    signals = {f"top_{n}gram_ratio": 0.0 for n in (2, 3, 4)} | {
        f"duplicate_{n}gram_ratio": 0.0 for n in (5, 10)
    }
    numbers: dict[str, int] = {}
    codes_1 = _scattered(
        np.fromiter(
            (numbers.setdefault(word, len(numbers)) for word in words), np.uint64, len(words)
        )
    )
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    ends = np.concatenate([[0], np.cumsum(lengths)])
    codes = codes_1
    for n in range(2, min(10, len(words)) + 1):
        codes = (
            codes[:-1] * np.uint64(0x9E3779B97F4A7C15) + codes_1[n - 1 :]
        )  # wraps around, as meant
        if n <= 4:
            signals[f"top_{n}gram_ratio"] = _top_share(codes, ends, n)
        elif n in (5, 10):
            signals[f"duplicate_{n}gram_ratio"] = _duplicate_share(codes, lengths, n)
    return signals


def _scattered(numbers: Codes) -> Codes:
    """SplitMix64's finalizer (Steele et al. 2014): neighbouring numbers become unrelated codes."""
    x = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _top_share(codes: Codes, ends: Lengths, n: int) -> float:
    """Share of the n-gram that occurs most often; of several, the longest. 0 if none occurs twice."""
    _, first, counts = np.unique(codes, return_index=True, return_counts=True)
    top = int(counts.max())
    if top == 1:
        return 0.0
    at = first[counts == top]
    return min(float(top * (ends[at + n] - ends[at]).max() / ends[-1]), 1.0)


def _duplicate_share(codes: Codes, lengths: Lengths, n: int) -> float:
    """Share in n-grams that occurred before; a character under several of them counts once."""
    _, first = np.unique(codes, return_index=True)
    if len(first) == len(codes):
        return 0.0
    seen = np.ones(len(codes), bool)
    seen[first] = False
    at = np.flatnonzero(seen)
    edges = np.zeros(len(lengths) + 1, np.int64)
    np.add.at(edges, at, 1)
    np.add.at(edges, at + n, -1)
    return float(lengths[np.cumsum(edges[:-1]) > 0].sum() / lengths.sum())
