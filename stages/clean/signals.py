"""The signals that the quality rules judge by: one pass over a text, linear in its length.

Definitions follow Rae et al. 2021 (Gopher, arXiv 2112.11446, A1), Raffel et al. 2020 (C4) and
Penedo et al. 2024 (FineWeb). Words are those of `Words.BY_SCRIPT`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from stages.text.ngrams import Hashes, hashes_within, longer_ngrams
from stages.text.scripts import has_letter
from stages.text.sentences import ELLIPSES, TERMINAL, count_ends
from stages.text.words import Words, words

SHORT_LINE = 30  # characters (FineWeb)

_BULLET = ("•", "‣", "▪", "●", "○", "◦", "·", "* ", "- ", "– ", "— ", "+ ")
_PARAGRAPH = re.compile(r"\n\s*\n")
_EDGES = ".,;:!?\"'()[]{}<>“”‘’"

_TOP_NGRAMS = (2, 3, 4)
_DUPLICATE_NGRAMS = (5, 10)

Lengths = npt.NDArray[np.int64]
Signals = dict[str, float | int | None]  # by column name of the contract


def measure(text: str, stop_words: Sequence[str] | None = None) -> Signals:
    """Measure all signals of a non-empty text.

    Args:
        text: A non-empty text.
        stop_words: The stop words of its language; None leaves that signal null.

    Returns:
        The signals. Those that need words are left out if there are none.
    """
    found = words(text, Words.BY_SCRIPT)
    count = len(found)
    lines = _not_blank(text.split("\n"))
    signals: Signals = {"words": count, **_line_signals(lines), **_ngram_signals(found)}
    if not count:
        return signals
    paragraphs = _not_blank(_PARAGRAPH.split(text))
    ellipses = text.count("...") + text.count("…")
    signals |= {
        "mean_word_length": sum(map(len, found)) / count,
        "alpha_words_ratio": sum(map(has_letter, found)) / count,
        "symbol_word_ratio": max(text.count("#"), ellipses) / count,
        "stop_words": None if stop_words is None else _distinct_stop_words(found, stop_words),
        "duplicate_paragraphs_ratio": 1 - len(set(paragraphs)) / len(paragraphs),
        "newline_word_ratio": text.count("\n") / count,
        "sentences": count_ends(text),
    }
    return signals


def _not_blank(parts: Iterable[str]) -> list[str]:
    """Return the parts without surrounding white space, except those that are empty then."""
    stripped = [part.strip() for part in parts]
    return [part for part in stripped if part]


def _distinct_stop_words(found: Sequence[str], stop_words: Sequence[str]) -> int:
    wanted = set(stop_words)
    distinct = set()
    for word in set(found):
        bare = word.strip(_EDGES).lower()
        if bare in wanted:
            distinct.add(bare)
    return len(distinct)


def _line_signals(lines: Sequence[str]) -> dict[str, float]:
    """Return the shares among the lines that are not blank."""
    if not lines:
        return {}
    count = len(lines)
    chars = sum(map(len, lines))
    distinct = set(lines)
    return {
        "bullet_lines_ratio": sum(line.startswith(_BULLET) for line in lines) / count,
        "ellipsis_lines_ratio": sum(line.endswith(ELLIPSES) for line in lines) / count,
        "duplicate_lines_ratio": 1 - len(distinct) / count,
        "duplicate_lines_chars_ratio": 1 - sum(map(len, distinct)) / chars,
        "line_punctuation_ratio": sum(line.endswith(TERMINAL) for line in lines) / count,
        "short_lines_ratio": sum(len(line) <= SHORT_LINE for line in lines) / count,
    }


def _ngram_signals(found: Sequence[str]) -> dict[str, float]:
    """Return the shares of the words' characters that lie in repeated n-grams.

    An n-gram is identified by its 64-bit hash.
    """
    signals = {f"top_{n}gram_ratio": 0.0 for n in _TOP_NGRAMS}
    signals |= {f"duplicate_{n}gram_ratio": 0.0 for n in _DUPLICATE_NGRAMS}
    lengths = np.fromiter(map(len, found), np.int64, len(found))
    ends = np.concatenate([[0], np.cumsum(lengths)])
    word_hashes = hashes_within(found)
    hashes = word_hashes
    for n in range(2, min(10, len(found)) + 1):
        hashes = longer_ngrams(hashes, word_hashes)
        if n in _TOP_NGRAMS:
            signals[f"top_{n}gram_ratio"] = _top_share(hashes, ends, n)
        elif n in _DUPLICATE_NGRAMS:
            signals[f"duplicate_{n}gram_ratio"] = _duplicate_share(hashes, lengths, n)
    return signals


def _top_share(hashes: Hashes, ends: Lengths, n: int) -> float:
    """Share of characters in the most frequent n-gram, or 0 if none occurs twice.

    Among n-grams that are equally frequent, the longest counts.

    Args:
        hashes: Hash of the n-gram that begins with each word, shape [words - n + 1].
        ends: Characters before each word and at the end, shape [words + 1].
        n: Words in an n-gram.
    """
    _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    top = int(counts.max())
    if top == 1:
        return 0.0
    starts = first[counts == top]
    longest = (ends[starts + n] - ends[starts]).max()
    return min(float(top * longest / ends[-1]), 1.0)


def _duplicate_share(hashes: Hashes, lengths: Lengths, n: int) -> float:
    """Share of characters in n-grams that occurred before.

    A character counts once, even if several of these n-grams cover it.

    Args:
        hashes: Hash of the n-gram that begins with each word, shape [words - n + 1].
        lengths: Characters of each word, shape [words].
        n: Words in an n-gram.
    """
    _, first = np.unique(hashes, return_index=True)
    if len(first) == len(hashes):
        return 0.0
    is_repeated = np.ones(len(hashes), bool)
    is_repeated[first] = False
    starts = np.flatnonzero(is_repeated)
    # How many repeated n-grams begin, less how many end, at each word.
    edges = np.zeros(len(lengths) + 1, np.int64)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + n, -1)
    is_covered = np.cumsum(edges[:-1]) > 0
    return float(lengths[is_covered].sum() / lengths.sum())


# The names of all signals.
SIGNALS = tuple(measure("one two", ()))
