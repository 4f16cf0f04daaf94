"""Scripts and letters: what belongs to a word, and which scripts put no spaces between words."""

from __future__ import annotations

import re
import unicodedata

# Insides of a character class: Thai and Lao, Burmese, Khmer, Japanese, Chinese.
UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    r"\u3040-\u30ff"
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
# The same with the Chinese characters outside the Basic Multilingual Plane.
ALL_UNSPACED = UNSPACED + r"\U00020000-\U000323af"
# Chinese and Japanese characters with their punctuation, between which a line break is no space.
CHINESE_OR_JAPANESE = r"\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"

_LETTER = re.compile(r"[^\W\d_]")
_ASCII_LETTER = re.compile("[A-Za-z]")
_NOT_LETTERS = re.compile(r"[\W\d_]+")  # combining marks are among them
_MARKS = ("Mn", "Mc")  # Unicode categories, e.g. of the vowel signs of Hindi


def has_letter(word: str) -> bool:
    """Return whether a word has a letter of any script."""
    if word.isalpha():
        return True
    letter = _ASCII_LETTER if word.isascii() else _LETTER
    return letter.search(word) is not None


def letters_only(text: str) -> str:
    """Return a text in which every run of other characters is one space."""
    return _NOT_LETTERS.sub(" ", text).strip()


def letters_and_spaces(text: str, with_marks: bool = False) -> int:
    """Count the letters and the white space of a text.

    Args:
        text: Any text.
        with_marks: Whether combining marks count as letters.
    """
    count = 0
    for character in text:
        if character.isalpha() or character.isspace() or (with_marks and _is_mark(character)):
            count += 1
    return count


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) in _MARKS
