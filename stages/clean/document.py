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
from stages.clean.rules import first_failing
from stages.clean.signals import measure

HTML = ("text/html", "application/xhtml+xml")
TEXT = ("text/plain", "text/markdown", "text/x-markdown", "text/x-rst")

_TITLE = re.compile(r"^#\s+(\S.*)$", re.MULTILINE)

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
        row["title"] = title
        row["text"] = text = repaired(text, config.normal_form, config.normalise_addresses)
        if not text.strip():
            raise Refused("empty", f"no text in {len(page.body)} bytes of {page.media_type}")
        row["language"], row["language_confidence"] = identify(text, model_path)
        if "c4" in config.rules:
            text, row["removed_lines"] = kept_lines(text, config.c4)
        row["text"], row["redactions"] = redact(text, config.redact)
        row |= measure(row["text"], config.gopher_quality.stop_words.get(row["language"]))
        if failed := first_failing(row, config):
            raise Refused(*failed, text=row["text"])
    except Refused as refusal:
        row |= {"reason": refusal.reason, "detail": refusal.detail, "text": refusal.text or row["text"]}
        if row["text"] and not row["words"]:  # refused half-way: the text has its signals all the same
            row["text"], row["redactions"] = redact(row["text"], config.redact)
            row |= measure(row["text"], config.gopher_quality.stop_words.get(row["language"]))
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


def _text_of(page: Page, config: CleanConfig) -> tuple[str, str | None]:
    if page.media_type in HTML:
        text, title = extract(decode(page.body, page.charset), precision=config.extractor == "precision")
        return text, repaired(" ".join(title.split()), config.normal_form) if title else None
    if page.media_type in TEXT:
        text = decode(page.body, page.charset)
        heading = _TITLE.search(text[:1000]) if "markdown" in page.media_type else None
        return text, heading[1].strip() if heading else None
    raise Refused("unsupported_media_type", f"{page.media_type}; read are {', '.join(HTML + TEXT)}")
