"""Words. Every stage that splits a text into words names one of the rules here.

The rules differ, and each makes results that are stored. So a stage keeps its rule until its
version is raised.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from enum import StrEnum

from stages.text.scripts import ALL_UNSPACED, UNSPACED


class Words(StrEnum):
    """A rule that says what a word is.

    Attributes:
        SPACED: Whatever stands between white space, in any script (train_tokenizer).
        BY_SCRIPT: The same, but every character of a script without spaces is a word (clean).
        UNICODE: Runs of letters, digits and underscores, in any script (dedup).
        FOLDED: Runs of letters and digits of the folded text; every character of a script without
            spaces is a word (collect_evals, decontaminate).
        ENGLISH: Runs of ASCII letters in lower case, with a contraction at the end (evaluate).
    """

    SPACED = "spaced"
    BY_SCRIPT = "by_script"
    UNICODE = "unicode"
    FOLDED = "folded"
    ENGLISH = "english"


class Folding(StrEnum):
    """A rule that says which spellings of a text are the same.

    The two differ in few letters, such as the German sharp s and the Greek final sigma.

    Attributes:
        LOWER: Lower case, then Unicode's compatibility form NFKC (dedup).
        CASEFOLD: NFKC, then Unicode's case folding (collect_evals, decontaminate).
    """

    LOWER = "lower"
    CASEFOLD = "casefold"


_HAS_UNSPACED = re.compile(f"[{UNSPACED}]")
_BY_SCRIPT = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
_UNICODE = re.compile(r"\w+")
_FOLDED = re.compile(rf"[{ALL_UNSPACED}]|[^\W_{ALL_UNSPACED}]+")
_ENGLISH = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")


def words(text: str, rule: Words) -> list[str]:
    """Split a text into words, in time linear in its length."""
    return _SPLITTERS[rule](text)


def splitter(rule: Words) -> Callable[[str], list[str]]:
    """Return the function that splits by a rule. It saves time where many texts are short."""
    return _SPLITTERS[rule]


def folded(text: str, rule: Folding) -> str:
    """Return the form in which texts are compared."""
    return _FOLDINGS[rule](text)


def _lower(text: str) -> str:
    lower = text.lower()
    return lower if lower.isascii() else unicodedata.normalize("NFKC", lower)


def _casefolded(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return text.casefold()


def _by_script(text: str) -> list[str]:
    if text.isascii() or not _HAS_UNSPACED.search(text):
        return text.split()
    return _BY_SCRIPT.findall(text)


def _of_folded(text: str) -> list[str]:
    return _FOLDED.findall(_casefolded(text))


def _english(text: str) -> list[str]:
    return [word.lower() for word in _ENGLISH.findall(text)]


_FOLDINGS: dict[Folding, Callable[[str], str]] = {
    Folding.LOWER: _lower,
    Folding.CASEFOLD: _casefolded,
}
_SPLITTERS: dict[Words, Callable[[str], list[str]]] = {
    Words.SPACED: str.split,
    Words.BY_SCRIPT: _by_script,
    Words.UNICODE: _UNICODE.findall,
    Words.FOLDED: _of_folded,
    Words.ENGLISH: _english,
}
