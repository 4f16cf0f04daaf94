"""Measures a tokenizer: bytes per token by source and language, unused tokens, round trips."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from stages.text.words import Words, words
from stages.train_tokenizer.round_trip import (
    TRICKY_STRINGS,
    check_round_trip,
    encode_and_check,
    every_character,
    in_batches,
)
from stages.train_tokenizer.sample import Group, TokenizerSample


@dataclass
class _GroupCounts:
    """Counts over the documents of a group. Words are between spaces, whatever the language."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    words: int = 0

    def add(self, other: _GroupCounts) -> None:
        self.documents += other.documents
        self.bytes += other.bytes
        self.tokens += other.tokens
        self.words += other.words

    def figures(self) -> dict[str, float | int]:
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "tokens": self.tokens,
            "bytes_per_token": round(self.bytes / self.tokens, 4),
            # Of no use for Chinese or Thai, which put no spaces between words.
            "tokens_per_word": round(self.tokens / max(self.words, 1), 4),
        }


@dataclass
class _Measurement:
    """Counts by group, and which ids occurred, shape [vocabulary]."""

    groups: dict[Group, _GroupCounts]
    is_used: npt.NDArray[np.bool_]


def report(
    tokenizer: Tokenizer, measured: Iterable[dict[str, Any]], sample: TokenizerSample
) -> dict[str, Any]:
    """Measure a tokenizer.

    Figures of the whole corpus weight the figure of each group by the bytes of the group.

    Args:
        tokenizer: The tokenizer to measure.
        measured: The documents of `sample.measure`.
        sample: The sample that the tokenizer was learned from.

    Returns:
        The content of report.json.

    Raises:
        ContractError: A text does not come back unchanged.
    """
    tokenizer.encode_special_tokens = True
    strings = check_round_trip(tokenizer, [*every_character(), *TRICKY_STRINGS], "character test")
    measurement = _measure(tokenizer, measured)
    groups = measurement.groups
    size = tokenizer.get_vocab_size()
    special = sum(token.special for token in tokenizer.get_added_tokens_decoder().values())
    unused = size - special - int(measurement.is_used.sum())
    return {
        "vocabulary_size": size,
        "special_tokens": special,
        "learned_from_bytes": sample.learn_bytes,
        "learned_from_documents": len(sample.learn),
        "measured_bytes": sum(counts.bytes for counts in groups.values()),
        "bytes_per_token": round(_corpus_bytes_per_token(groups, sample), 4),
        "unused_tokens": unused,
        "unused_share": round(unused / size, 4),
        "round_trip": {"strings": strings, "documents": len(sample.measure), "failures": 0},
        "by_source": _figures_by(groups, 0),
        "by_language": _figures_by(groups, 1),
    }


def _corpus_bytes_per_token(groups: dict[Group, _GroupCounts], sample: TokenizerSample) -> float:
    corpus_bytes = 0
    corpus_tokens = 0.0
    for group, counts in groups.items():
        group_bytes = sample.group_bytes[group]
        corpus_bytes += group_bytes
        corpus_tokens += group_bytes * counts.tokens / counts.bytes
    return corpus_bytes / corpus_tokens


def _measure(tokenizer: Tokenizer, measured: Iterable[dict[str, Any]]) -> _Measurement:
    groups: dict[Group, _GroupCounts] = defaultdict(_GroupCounts)
    is_used = np.zeros(tokenizer.get_vocab_size(), dtype=bool)
    for documents in in_batches(measured):
        texts = [document["text"] for document in documents]
        encoded = encode_and_check(tokenizer, texts, "training documents")
        for document, text, ids in zip(documents, texts, encoded, strict=True):
            word_count = len(words(text, Words.SPACED))
            counts = _GroupCounts(1, len(text.encode()), len(ids), word_count)
            groups[document["source"], document["language"]].add(counts)
            is_used[ids] = True
    return _Measurement(groups, is_used)


def _figures_by(groups: dict[Group, _GroupCounts], part: int) -> dict[str, dict[str, float | int]]:
    """Return the figures by one part of a group: its source (0) or its language (1)."""
    sums: dict[str, _GroupCounts] = defaultdict(_GroupCounts)
    for group, counts in groups.items():
        sums[group[part]].add(counts)
    return {name: sums[name].figures() for name in sorted(sums)}
