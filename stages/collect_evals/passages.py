"""A page as a sequence of segments: sentences, and lines that are no sentences.

This works in any script. Where a script has no spaces between words (Chinese, Japanese, Thai, Lao,
Khmer, Burmese), each character counts as a word.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_SPACELESS = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
    r"\u3040-\u30ff"  # Japanese
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Chinese characters
)
_WORD = re.compile(rf"[{_SPACELESS}]|[^\W_{_SPACELESS}]+")
_END = re.compile(
    r"""(?:(?<=[.!?؟।…])|(?<=[.!?؟।…]["'”’)\]]))[ \t]+(?=\S)"""  # an end of sentence and a space
    r"|(?<=[。！？])[ \t]*(?=\S)"  # or an end of sentence that needs no space
    r"|\n[ \t]*(?:\n\s*)?(?=\S)"  # or the end of a line
)
_SIGNATURE = re.compile(
    r"(?:(?:class|def|async def) )?[A-Za-z_][\w.]*\s?\([^\n]*\)(?:\s*->\s*\S[^\n]*)?:?"
)
MAX_SIGNATURE_CHARACTERS = 200
MIN_HEADING_CHARACTERS = 3
MAX_HEADING_CHARACTERS = 80
MIN_PROSE_WORDS = 5
MIN_LETTER_SHARE = 0.75  # letters and spaces among the characters of prose


@dataclass(frozen=True)
class Segment:
    """A part of a page.

    Attributes:
        start: Where it starts in the page, in characters.
        end: Where it ends.
        text: Its text. Line breaks and runs of spaces are one space each.
        opens_paragraph: Whether a blank line, or the start of the page, stands before it.
        closes_paragraph: Whether a blank line, or the end of the page, follows it.
    """

    start: int
    end: int
    text: str
    opens_paragraph: bool
    closes_paragraph: bool

    @property
    def is_signature(self) -> bool:
        """Whether it reads like the signature of a function or class."""
        if len(self.text) > MAX_SIGNATURE_CHARACTERS:
            return False
        return _SIGNATURE.fullmatch(self.text) is not None

    @property
    def is_heading(self) -> bool:
        """Whether it is a short line between blank lines, without the end of a sentence."""
        if not (self.opens_paragraph and self.closes_paragraph):
            return False
        if not MIN_HEADING_CHARACTERS <= len(self.text) <= MAX_HEADING_CHARACTERS:
            return False
        return self.text[-1] not in ".!?:;,。！？：" and self._is_mostly_letters

    @property
    def is_prose(self) -> bool:
        """Whether it is words rather than a table, a signature or data."""
        if self.is_signature or self.text.endswith((":", "：")):
            return False
        return len(words(self.text)) >= MIN_PROSE_WORDS and self._is_mostly_letters

    @property
    def _is_mostly_letters(self) -> bool:
        letters = sum(_is_letter_or_space(character) for character in self.text)
        return letters >= MIN_LETTER_SHARE * len(self.text)


def _is_letter_or_space(character: str) -> bool:
    if character.isalpha() or character.isspace():
        return True
    return unicodedata.category(character) in ("Mn", "Mc")  # marks, e.g. vowel signs of Hindi


def segments(text: str) -> list[Segment]:
    """Splits a page into segments. A line that starts in lower case continues the one before."""
    starts, ends = [0], []
    breaks = [True]  # before each start: whether a paragraph ends there
    for cut in _END.finditer(text):
        is_blank_line = cut.group().count("\n") > 1
        continues = text[cut.end()].islower() and not _is_signature_at(text, cut.end())
        if continues and not is_blank_line:
            continue  # a wrapped line, or a full stop that ends no sentence
        ends.append(cut.start())
        starts.append(cut.end())
        breaks.append(is_blank_line)
    ends.append(len(text))
    breaks.append(True)
    found = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        shown = " ".join(text[start:end].split())
        if shown:
            found.append(Segment(start, end, shown, breaks[number], breaks[number + 1]))
    return found


def words(text: str) -> list[str]:
    """Returns the words in normal form: case and compatibility forms folded, no punctuation."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _WORD.findall(text.casefold())


def _is_signature_at(text: str, start: int) -> bool:
    stop = text.find("\n", start)
    if stop < 0:
        stop = len(text)
    return _SIGNATURE.fullmatch(text[start:stop].strip()) is not None
