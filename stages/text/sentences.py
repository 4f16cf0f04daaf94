"""Sentences: where one ends, and whether a text ends with one.

As with words, the rules differ, and each makes results that are stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum

ELLIPSES = ("...", "…")
# The last character of a line that ends a sentence (C4 and FineWeb).
TERMINAL = (".", "!", "?", '"', "'", "”", "’", "。", "！", "？", "؟", "।", "…")
# Marks after which a short line is no heading.
NOT_OF_HEADINGS = ".!?:;,。！？"


class Breaks(StrEnum):
    """A rule that says where a sentence ends and the next may begin.

    Attributes:
        PROSE: In prose on one line. No sentence ends after an initial or an abbreviation, or before
            a lower-case letter of ASCII (collect_chats).
        LINES: After an end mark and a space, and at the end of a line (collect_evals).
    """

    PROSE = "prose"
    LINES = "lines"


class Ending(StrEnum):
    """A rule that says how a text that ends with a sentence ends.

    Attributes:
        PROSE: With an end mark of Latin or Chinese script, perhaps in quotation marks
            (collect_chats).
        ENGLISH: With an end mark of ASCII, perhaps in quotation marks or brackets (evaluate).
    """

    PROSE = "prose"
    ENGLISH = "english"


_BREAKS = {
    Breaks.PROSE: re.compile(
        r"(?<![A-Z]\.)(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)"
        r"(?<=[.!?])[\"')\]’”]*\s+(?=[^\sa-z])"
        r"|(?<=[。！？])(?![。！？」』”’）])"  # these end marks need no space
    ),
    Breaks.LINES: re.compile(
        r"""(?:(?<=[.!?؟।…])|(?<=[.!?؟।…]["'”’)\]]))[ \t]+(?=\S)"""
        r"|(?<=[。！？])[ \t]*(?=\S)"  # these end marks need no space
        r"|\n[ \t]*(?:\n\s*)?(?=\S)"
    ),
}
_ENDINGS = {
    Ending.PROSE: re.compile(r"[.!?…]$|\.[\")]$|[。！？][」』”’）]*$"),
    Ending.ENGLISH: re.compile(r"[.!?][\"'`)\]]*$"),
}
_END = re.compile(r"""[.!?]["'”’)\]]*(?=\s|$)""")
_OTHER_END = re.compile("[。！？؟।]")


def breaks(text: str, rule: Breaks) -> Iterator[re.Match[str]]:
    """Yield what stands between a sentence and the next, perhaps nothing."""
    return _BREAKS[rule].finditer(text)


def has_break(text: str, rule: Breaks) -> bool:
    """Return whether a sentence ends within a text."""
    return _BREAKS[rule].search(text) is not None


def sentences(text: str, rule: Breaks) -> list[str]:
    """Split a text into its sentences, without white space around them."""
    parts = [part.strip() for part in _BREAKS[rule].split(text)]
    return [part for part in parts if part]


def ends_sentence(text: str, rule: Ending) -> bool:
    """Return whether a text ends with the end of a sentence."""
    return _ENDINGS[rule].search(text) is not None


def count_ends(text: str) -> int:
    """Count the end marks of sentences, those of other scripts wherever they stand (clean)."""
    count = len(_END.findall(text))
    if not text.isascii():
        count += len(_OTHER_END.findall(text))
    return count
