"""Paragraphs, sentences and headings of plain text.

Works in any language that ends sentences with . ! ? or 。！？.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from stages.text.scripts import CHINESE_OR_JAPANESE, letters_and_spaces
from stages.text.sentences import (
    NOT_OF_HEADINGS,
    Breaks,
    Ending,
    ends_sentence,
    has_break,
    sentences,
)

_UNSPACED = f"[{CHINESE_OR_JAPANESE}]"
UNSPACED_BREAK = re.compile(rf"(?<={_UNSPACED})\n(?={_UNSPACED})")
IDEOGRAPHIC_SPACE = "\u3000"
UNDERLINE = re.compile(r"^([=\-~^#*])\1{2,}$")
LIST_MARK = re.compile(r"^(?:[*•·+-]|\d+[.)])\s")
MIN_HEADING_CHARS = 3
MAX_HEADING_CHARS = 80
MIN_WORDY_SHARE = 0.75  # letters and spaces among the characters of prose
MIN_WORDY_SHARE_OF_HEADING = 0.8


def paragraphs(text: str) -> Iterator[list[str]]:
    """Yield runs of lines that no blank line interrupts."""
    lines: list[str] = []
    for line in (*text.splitlines(), ""):
        if line.strip():
            lines.append(line)
        elif lines:
            yield lines
            lines = []


def paragraph_text(lines: list[str]) -> str | None:
    """Return a paragraph as one line, or None if it is code, a table, a list or a session."""
    if LIST_MARK.match(lines[0]):
        return None
    if any(_is_code(line) for line in lines):
        return None
    joined = UNSPACED_BREAK.sub("", "\n".join(lines))
    text = " ".join(joined.split())
    has_several_words = " " in text or has_break(text, Breaks.PROSE)
    if has_several_words and letters_and_spaces(text) >= MIN_WORDY_SHARE * len(text):
        return text
    return None


def _is_code(line: str) -> bool:
    # An ideographic space opens a paragraph in Chinese and Japanese. Any other one marks code.
    is_indented = line[0].isspace() and line[0] != IDEOGRAPHIC_SPACE
    if is_indented or line.startswith((">>>", "|", "#")):
        return True
    return UNDERLINE.match(line.strip()) is not None


def whole_sentences(text: str, max_chars: int) -> str | None:
    """Return as many sentences from the start as fit into `max_chars`, closed with an end mark.

    Returns:
        The sentences, or None if not even the first one fits.
    """
    taken = ""
    for sentence in sentences(text, Breaks.PROSE):
        needs_space = taken and not taken.endswith(("。", "！", "？"))
        longer = taken + (" " if needs_space else "") + sentence
        if len(longer) >= max_chars:  # one character is left for an end mark
            break
        taken = longer
    return with_end_mark(taken) if taken else None


def with_end_mark(text: str) -> str:
    """Return the text with a full stop after it, unless it has an end mark already."""
    text = text.rstrip(" ,;:，、；：")
    if ends_sentence(text, Ending.PROSE):
        return text
    return text + ("。" if re.match(_UNSPACED, text[-1:]) else ".")


def sections(text: str, only_marked: bool = False) -> Iterator[tuple[str, str]]:
    """Yield each heading with the first paragraph below it, where that is prose.

    Args:
        text: The text of a page.
        only_marked: Only headings that are underlined or start with `#` count. Otherwise every
            short line between blank lines counts, too.
    """
    heading: str | None = None
    for paragraph in paragraphs(text):
        found, body_lines = _split_heading(paragraph, only_marked)
        if found:
            heading = found
        if not body_lines:  # nothing but the heading
            continue
        if heading:
            body = paragraph_text(body_lines)
            if body:
                yield heading, body
        heading = None


def _split_heading(paragraph: list[str], only_marked: bool) -> tuple[str | None, list[str]]:
    """Split a paragraph into the heading that it starts with, if any, and the other lines."""
    lines = [line.strip() for line in paragraph]
    heading = _heading(lines[0])
    if heading is None:
        return None, paragraph
    if len(lines) == 1 and not only_marked:
        return heading, []
    if len(lines) > 1 and UNDERLINE.match(lines[1]):
        return heading, paragraph[2:]
    if lines[0].startswith("#"):
        return heading, paragraph[1:]
    return None, paragraph


def _heading(line: str) -> str | None:
    """Return the text of a line that reads like a heading."""
    text = line.lstrip("#").strip()
    if not MIN_HEADING_CHARS <= len(text) <= MAX_HEADING_CHARS:
        return None
    if not text[0].isalnum() or text[-1] in NOT_OF_HEADINGS or set(text) & set("=<>|{}"):
        return None
    if letters_and_spaces(text) < MIN_WORDY_SHARE_OF_HEADING * len(text):
        return None
    return text
