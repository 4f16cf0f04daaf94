"""Equal words and n-grams have equal hashes, different ones have different hashes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.text import ngrams
from stages.text.ngrams import (
    WordHashes,
    hashes_within,
    longer_ngrams,
    ngram_hashes,
    text_hash,
)

TEXTS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=12)


@given(TEXTS, st.integers(1, 5))
def test_hashes_of_ngrams_are_equal_exactly_where_the_ngrams_are(text: list[str], n: int) -> None:
    grams = [tuple(text[start : start + n]) for start in range(len(text) - n + 1)]
    hashes = ngram_hashes(WordHashes().of(text), n).tolist()
    assert len(hashes) == len(grams)
    assert len(set(zip(grams, hashes, strict=True))) == len(set(grams)) == len(set(hashes))


@given(TEXTS.filter(bool))
def test_ngrams_that_grow_word_by_word_have_the_same_hashes(text: list[str]) -> None:
    word_hashes = WordHashes().of(text)
    hashes = word_hashes
    for n in range(2, len(text) + 1):
        hashes = longer_ngrams(hashes, word_hashes)
        assert np.array_equal(hashes, ngram_hashes(word_hashes, n))


@given(TEXTS)
def test_hashes_within_a_text_are_equal_exactly_where_its_words_are(text: list[str]) -> None:
    hashes = hashes_within(text).tolist()
    assert len(set(zip(text, hashes, strict=True))) == len(set(text)) == len(set(hashes))


def test_hashing_ngrams_leaves_the_hashes_of_words_as_they_are() -> None:
    word_hashes = WordHashes().of(["a", "b", "c"])
    before = word_hashes.copy()
    ngram_hashes(word_hashes, 2)
    assert np.array_equal(word_hashes, before)


def test_a_full_cache_starts_again_and_gives_the_same_hashes() -> None:
    small = WordHashes(max_words=2)
    text = ["a", "b", "c", "a", "b", "c"]
    assert np.array_equal(small.of(text), WordHashes().of(text))
    assert len(small) <= 2


def test_long_words_are_hashed_but_not_remembered() -> None:
    cache = WordHashes()
    word = "x" * (ngrams.MAX_WORD_CHARS + 1)
    assert cache.of([word]).tolist() == [text_hash(word)]
    assert len(cache) == 0


@pytest.mark.parametrize("text", ["", "word", "中文", "\ud800"])
def test_any_text_has_a_hash_of_64_bits(text: str) -> None:
    assert 0 <= text_hash(text) < 2**64
