"""Paragraphs, sentences and headings of plain text, in any language that ends sentences with . ! ? or 。！？."""

from __future__ import annotations

import re
from collections.abc import Iterator

SENTENCE_END = re.compile(
    r"(?<![A-Z]\.)(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<=[.!?])[\"')\]’”]*\s+(?=[^\sa-z])|(?<=[。！？])(?![。！？」』”’）])"
)
CLOSED = re.compile(r"[.!?…]$|\.[\")]$|[。！？][」』”’）]*$")
UNSPACED = "[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef]"  # Chinese and Japanese, with their punctuation
UNSPACED_BREAK = re.compile(rf"(?<={UNSPACED})\n(?={UNSPACED})")
UNDERLINE = re.compile(r"^([=\-~^#*])\1{2,}$")
LIST_MARK = re.compile(r"^(?:[*•·+-]|\d+[.)])\s")
MAX_HEADING = 80  # characters


def paragraphs(text: str) -> Iterator[list[str]]:
    """Runs of lines without a blank one between them."""
    lines: list[str] = []
    for line in (*text.splitlines(), ""):
        if line.strip():
            lines.append(line)
        elif lines:
            yield lines
            lines = []


def prose(lines: list[str]) -> str | None:
    """The paragraph as one line; None if it is code, a table, a list or a session rather than sentences."""
    if any(map(_is_code, lines)) or LIST_MARK.match(lines[0]):
        return None
    text = " ".join(UNSPACED_BREAK.sub("", "\n".join(lines)).split())
    wordy = sum(c.isalpha() or c.isspace() for c in text)
    return (
        text if wordy >= 0.75 * len(text) and (" " in text or SENTENCE_END.search(text)) else None
    )


def _is_code(line: str) -> bool:
    indented = (
        line[0].isspace() and line[0] != "\u3000"
    )  # which opens a paragraph in Chinese and Japanese
    return indented or line.startswith((">>>", "|", "#")) or bool(UNDERLINE.match(line.strip()))


def sentences(text: str) -> list[str]:
    return [part.strip() for part in SENTENCE_END.split(text) if part.strip()]


def whole_sentences(text: str, max_chars: int) -> str | None:
    """As many sentences from the start as fit, closed with a full stop where the text has no end mark; None if not one fits."""
    taken = ""
    for sentence in sentences(text):
        longer = (
            taken + ("" if taken.endswith(("。", "！", "？")) else " ") + sentence
            if taken
            else sentence
        )
        if len(longer) >= max_chars:  # one character is left for a full stop
            break
        taken = longer
    return closed(taken) if taken else None


def closed(text: str) -> str:
    """The text with an end mark."""
    text = text.rstrip(" ,;:，、；：")
    if CLOSED.search(text):
        return text
    return text + ("。" if re.match(UNSPACED, text[-1:]) else ".")


def sections(text: str, marked: bool = False) -> Iterator[tuple[str, str]]:
    """(heading, first paragraph below it), where that is prose.

    Headings are marked (#), underlined or, unless only `marked` ones count, short lines of their own.
    """
    heading: str | None = None
    for block in paragraphs(text):
        lines = [line.strip() for line in block]
        if len(lines) == 1 and not marked and (found := _heading(lines[0])):
            heading = found
            continue
        if len(lines) > 1 and UNDERLINE.match(lines[1]) and (found := _heading(lines[0])):
            heading, block = found, block[2:]
        elif lines[0].startswith("#") and (found := _heading(lines[0])):
            heading, block = found, block[1:]
        if not block:  # the heading is a paragraph of its own
            continue
        if heading and (body := prose(block)):
            yield heading, body
        heading = None


def _heading(line: str) -> str | None:
    line = line.lstrip("#").strip()
    good = (
        3 <= len(line) <= MAX_HEADING
        and line[0].isalnum()
        and line[-1] not in ".!?:;,。！？"
        and not set(line) & set("=<>|{}")
    )
    return (
        line if good and sum(c.isalpha() or c.isspace() for c in line) >= 0.8 * len(line) else None
    )
