"""Letters of every script."""

from __future__ import annotations

import pytest

from stages.text.scripts import has_letter, letters_and_spaces, letters_only


@pytest.mark.parametrize(
    ("word", "expected"),
    [("abc", True), ("1a", True), ("42", False), ("--", False), ("é1", True), ("中", True)],
)
def test_a_word_has_a_letter_or_none(word: str, expected: bool) -> None:
    assert has_letter(word) is expected


def test_everything_else_becomes_one_space() -> None:
    assert letters_only("  ab_12--cd 中! ") == "ab cd 中"


def test_marks_count_as_letters_only_if_asked_for() -> None:
    hindi = "कि ता"  # two letters, two vowel signs, a space
    assert letters_and_spaces(hindi) == 3
    assert letters_and_spaces(hindi, with_marks=True) == 5
