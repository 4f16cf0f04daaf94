"""A page as a sequence of segments: sentences, and lines that are no sentences.

This works in any script. Words are those of `Words.FOLDED`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from stages.text.scripts import letters_and_spaces
from stages.text.sentences import NOT_OF_HEADINGS, Breaks, breaks
from stages.text.words import Words, splitter

# The words of a text, without regard to case and punctuation.
folded_words = splitter(Words.FOLDED)

_SIGNATURE = re.compile(
    r"(?:(?:class|def|async def) )?[A-Za-z_][\w.]*\s?\([^\n]*\)(?:\s*->\s*\S[^\n]*)?:?"
)
MAX_SIGNATURE_CHARACTERS = 200
MIN_HEADING_CHARACTERS = 3
MAX_HEADING_CHARACTERS = 80
MIN_PROSE_WORDS = 5
MIN_LETTER_SHARE = 0.75  # letters and spaces among the characters of prose
_COLONS = (":", "：")


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
        if self.text.endswith(_COLONS) or self.text[-1] in NOT_OF_HEADINGS:
            return False
        return self._is_mostly_letters

    @property
    def is_prose(self) -> bool:
        """Whether it is words rather than a table, a signature or data."""
        if self.is_signature or self.text.endswith(_COLONS):
            return False
        if len(folded_words(self.text)) < MIN_PROSE_WORDS:
            return False
        return self._is_mostly_letters

    @property
    def _is_mostly_letters(self) -> bool:
        letters = letters_and_spaces(self.text, with_marks=True)
        return letters >= MIN_LETTER_SHARE * len(self.text)


def segments(text: str) -> list[Segment]:
    """Split a page into segments. A line that starts in lower case continues the one before."""
    starts, ends = [0], []
    opens = [True]  # before each start: whether a paragraph ends there
    for cut in breaks(text, Breaks.LINES):
        is_blank_line = cut.group().count("\n") > 1
        continues = text[cut.end()].islower() and not _is_signature_at(text, cut.end())
        if continues and not is_blank_line:
            continue  # a wrapped line, or a full stop that ends no sentence
        ends.append(cut.start())
        starts.append(cut.end())
        opens.append(is_blank_line)
    ends.append(len(text))
    opens.append(True)
    found = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        shown = " ".join(text[start:end].split())
        if shown:
            segment = Segment(
                start,
                end,
                shown,
                opens_paragraph=opens[number],
                closes_paragraph=opens[number + 1],
            )
            found.append(segment)
    return found


def _is_signature_at(text: str, start: int) -> bool:
    stop = text.find("\n", start)
    if stop < 0:
        stop = len(text)
    return _SIGNATURE.fullmatch(text[start:stop].strip()) is not None
