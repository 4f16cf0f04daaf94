"""One page through every step, in the order of this file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from stages.clean.characters import repaired
from stages.clean.config import CleanConfig
from stages.clean.decoding import decode
from stages.clean.html import extract
from stages.clean.language import UNDECIDED, identify
from stages.clean.lines import kept_lines
from stages.clean.redaction import redact
from stages.clean.refusal import Refused
from stages.clean.rules import failing_language, first_failing
from stages.clean.signals import measure

HTML = ("text/html", "application/xhtml+xml")
TEXT = ("text/plain", "text/markdown", "text/x-markdown", "text/x-rst")

TITLE_LENGTH = 1000  # characters of a title that are kept; a markdown heading is sought among so many of the text

_HEADING = re.compile(r"^#\s+(\S[^\r\n]*)", re.MULTILINE)

Row = dict[str, Any]


@dataclass(frozen=True)
class Page:
    """What clean needs of a raw document."""

    body: bytes
    media_type: str
    charset: str | None


def cleaned(page: Page, config: CleanConfig, model_path: str) -> Row:
    """The columns that clean decides; `reason` and `detail` are there if the document is refused."""
    row = blank()
    try:
        text, title = _text_of(page, config)
        row["title"], row["redactions"] = _presentable(title, config)
        row["text"] = text = repaired(text, config.normal_form, config.normalise_addresses)
        if not text.strip():
            raise Refused("empty", f"no text in {len(page.body)} bytes of {page.media_type}")
        row["language"], row["language_confidence"] = identify(text, model_path)
        if failed := failing_language(row, config.language):
            raise Refused(*failed)
        if "c4" in config.rules:
            text, row["removed_lines"] = kept_lines(text, config.c4)
        _redact_and_measure(row, text, config)
        if failed := first_failing(row, config):
            raise Refused(*failed, text=row["text"])
    except Refused as refusal:
        row |= {
            "reason": refusal.reason,
            "detail": refusal.detail,
            "text": refusal.text or row["text"],
        }
        if (
            row["text"] and not row["words"]
        ):  # refused half-way: the text has its signals all the same
            _redact_and_measure(row, row["text"], config)
    return row


def blank(**values: Any) -> Row:
    """A row of nothing: all that is known of a document that could not be read."""
    columns = {
        "title": None,
        "text": "",
        "language": UNDECIDED,
        "words": 0,
        "removed_lines": 0,
        "redactions": 0,
        "language_confidence": None,
    }
    signals = dict.fromkeys(_SIGNALS)
    return signals | columns | values


_SIGNALS = [name for name in measure("one two", ()) if name != "words"]


def _redact_and_measure(row: Row, text: str, config: CleanConfig) -> None:
    row["text"], found = redact(text, config.redact)
    row["redactions"] += found  # beside those of the title
    row.update(measure(row["text"], config.gopher_quality.stop_words.get(row["language"])))


def _presentable(title: str | None, config: CleanConfig) -> tuple[str | None, int]:
    """The title on one line, repaired and redacted like the text, and how many placeholders were put in."""
    line = repaired(" ".join((title or "").split()), config.normal_form, config.normalise_addresses)
    shown, found = redact(" ".join(line.split()), config.redact)
    return shown[:TITLE_LENGTH] or None, found  # cut last: half an address would not be recognised


def _text_of(page: Page, config: CleanConfig) -> tuple[str, str | None]:
    """Text and title as the page has them, neither repaired nor redacted."""
    if page.media_type in HTML:
        return extract(decode(page.body, page.charset), precision=config.extractor == "precision")
    if page.media_type in TEXT:
        text = decode(page.body, page.charset)
        heading = _HEADING.search(text) if "markdown" in page.media_type else None
        return text, heading[1] if heading and heading.start() < TITLE_LENGTH else None
    raise Refused("unsupported_media_type", f"{page.media_type}; read are {', '.join(HTML + TEXT)}")
