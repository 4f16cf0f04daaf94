"""What a word is, by each of the rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.text.words import Folding, Words, folded, words

SAMPLE = "Don't re-use x_1, straße ÉCOLE 中文 कमल!"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Words.SPACED, ["Don't", "re-use", "x_1,", "straße", "ÉCOLE", "中文", "कमल!"]),
        (Words.BY_SCRIPT, ["Don't", "re-use", "x_1,", "straße", "ÉCOLE", "中", "文", "कमल!"]),
        (Words.UNICODE, ["Don", "t", "re", "use", "x_1", "straße", "ÉCOLE", "中文", "कमल"]),
        (
            Words.FOLDED,
            ["don", "t", "re", "use", "x", "1", "strasse", "école", "中", "文", "कमल"],
        ),
        (Words.ENGLISH, ["don't", "re", "use", "x", "stra", "e", "cole"]),
    ],
)
def test_each_rule_splits_in_its_own_way(rule: Words, expected: list[str]) -> None:
    assert words(SAMPLE, rule) == expected


def test_rare_chinese_characters_are_words_of_their_own_when_folded_alone() -> None:
    rare = "\U00020000\U00020001"
    assert words(rare, Words.FOLDED) == list(rare)
    assert words(rare, Words.BY_SCRIPT) == [rare]


def test_a_vowel_sign_of_hindi_ends_a_word_of_two_rules() -> None:
    """As it was before: whether marks belong to words is another decision."""
    assert words("हिन्दी", Words.UNICODE) == words("हिन्दी", Words.FOLDED) == ["ह", "न", "द"]


@pytest.mark.parametrize("rule", list(Words))
@given(text=st.text(max_size=60))
def test_words_are_not_empty_and_hold_no_white_space(rule: Words, text: str) -> None:
    for word in words(text, rule):
        assert word
        assert not any(map(str.isspace, word))


def test_foldings_differ_in_the_sharp_s_alone_of_these() -> None:
    text = "ﬁne Straße Å ①"
    assert folded(text, Folding.LOWER) == "fine straße å 1"
    assert folded(text, Folding.CASEFOLD) == "fine strasse å 1"


@pytest.mark.parametrize("rule", list(Folding))
@given(text=st.text(st.characters(codec="ascii"), max_size=60))
def test_ascii_is_folded_to_lower_case(rule: Folding, text: str) -> None:
    assert folded(text, rule) == text.lower()
