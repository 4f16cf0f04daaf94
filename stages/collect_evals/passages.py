"""A page as a sequence of segments: sentences, and lines that stand for themselves. Works for any script.

Where a script has no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese), each character counts as a word.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_SPACELESS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_WORD = re.compile(rf"[{_SPACELESS}]|[^\W_{_SPACELESS}]+")
_END = re.compile(
    r"""(?:(?<=[.!?؟।…])|(?<=[.!?؟।…]["'”’)\]]))[ \t]+(?=\S)"""  # an end of sentence and a space
    r"|(?<=[。！？])[ \t]*(?=\S)"  # or one of those that need none
    r"|\n[ \t]*(?:\n\s*)?(?=\S)"  # or the end of a line
)
_SIGNATURE = re.compile(
    r"(?:(?:class|def|async def) )?[A-Za-z_][\w.]*\s?\([^\n]*\)(?:\s*->\s*\S[^\n]*)?:?"
)


@dataclass(frozen=True)
class Segment:
    """start, end: where it lies in the page. text: its text, with line breaks and runs of spaces as one space."""

    start: int
    end: int
    text: str
    opens_paragraph: bool
    closes_paragraph: bool

    @property
    def is_signature(self) -> bool:
        return len(self.text) <= 200 and _SIGNATURE.fullmatch(self.text) is not None

    @property
    def is_heading(self) -> bool:
        """A short line between blank lines, without the end of a sentence."""
        alone = self.opens_paragraph and self.closes_paragraph
        return (
            alone
            and 3 <= len(self.text) <= 80
            and self.text[-1] not in ".!?:;,。！？："
            and self._is_mostly_letters
        )

    @property
    def is_prose(self) -> bool:
        """Words rather than tables, signatures or data: five words at least, three quarters of it letters and spaces."""
        if self.is_signature or self.text.endswith((":", "：")) or len(words(self.text)) < 5:
            return False
        return self._is_mostly_letters

    @property
    def _is_mostly_letters(self) -> bool:
        return sum(
            c.isalpha() or c.isspace() or unicodedata.category(c) in ("Mn", "Mc") for c in self.text
        ) >= 0.75 * len(self.text)


def segments(text: str) -> list[Segment]:
    """The segments of a page in order. A line that goes on in lower case is joined with the one before."""
    starts, ends, blanks = [0], [], []
    for cut in _END.finditer(text):
        blank = cut.group().count("\n") > 1
        if not blank and text[cut.end()].islower() and not _signature_at(text, cut.end()):
            continue  # a wrapped line, or a full stop that ends no sentence
        ends.append(cut.start())
        starts.append(cut.end())
        blanks.append(blank)
    ends.append(len(text))
    found = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        opens, closes = number == 0 or blanks[number - 1], number == len(blanks) or blanks[number]
        if shown := " ".join(text[start:end].split()):
            found.append(Segment(start, end, shown, opens, closes))
    return found


def words(text: str) -> list[str]:
    """Words in normal form: compatibility forms and case folded, punctuation dropped."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _WORD.findall(text.casefold())


def _signature_at(text: str, start: int) -> bool:
    stop = text.find("\n", start)
    return _SIGNATURE.fullmatch(text[start : stop if stop >= 0 else len(text)].strip()) is not None
