"""Takes one page through every cleaning step, in the order of this file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from stages.clean.characters import repaired
from stages.clean.config import CleanConfig
from stages.clean.decoding import decode
from stages.clean.html import extract
from stages.clean.language import UNDETERMINED, identify
from stages.clean.lines import kept_lines
from stages.clean.redaction import redact
from stages.clean.refusal import Rejection
from stages.clean.rules import failing_language, first_failing
from stages.clean.signals import measure

HTML = ("text/html", "application/xhtml+xml")
TEXT = ("text/plain", "text/markdown", "text/x-markdown", "text/x-rst")

# Characters of a title that are kept. The heading of a Markdown page has to begin within as many
# characters of its text.
MAX_TITLE_CHARS = 1000

_HEADING = re.compile(r"^#\s+(\S[^\r\n]*)", re.MULTILINE)
_SIGNALS = [name for name in measure("one two", ()) if name != "words"]

Row = dict[str, Any]


@dataclass(frozen=True)
class RawPage:
    """The part of a raw document that cleaning needs."""

    body: bytes
    media_type: str
    charset: str | None


def cleaned(page: RawPage, config: CleanConfig, model_path: str) -> Row:
    """Cleans one page.

    Args:
        page: The page as it was fetched.
        config: The settings of the stage.
        model_path: Path of the fastText model that identifies languages.

    Returns:
        The columns that clean produces. A rejected document also has `reason` and `detail`.
    """
    row = blank()
    try:
        _clean_into(row, page, config, model_path)
    except Rejection as rejection:
        row["reason"] = rejection.reason
        row["detail"] = rejection.detail
        row["text"] = rejection.text or row["text"]
        is_measured = bool(row["words"])
        if row["text"] and not is_measured:
            # A document that was rejected half-way has its signals, too.
            _redact_and_measure(row, row["text"], config)
    return row


def _clean_into(row: Row, page: RawPage, config: CleanConfig, model_path: str) -> None:
    text, title = _text_and_title(page, config)
    row["title"], row["redactions"] = _cleaned_title(title, config)
    text = repaired(text, config.normal_form, config.normalise_addresses)
    row["text"] = text
    if not text.strip():
        raise Rejection("empty", f"no text in {len(page.body)} bytes of {page.media_type}")
    row["language"], row["language_confidence"] = identify(text, model_path)
    failure = failing_language(row, config.language)
    if failure:
        raise Rejection(*failure)
    if "c4" in config.rules:
        text, row["removed_lines"] = kept_lines(text, config.c4)
    _redact_and_measure(row, text, config)
    failure = first_failing(row, config)
    if failure:
        raise Rejection(*failure, text=row["text"])


def blank(**values: Any) -> Row:
    """Returns the row of a document that could not be read, with `values` in it."""
    columns = {
        "title": None,
        "text": "",
        "language": UNDETERMINED,
        "words": 0,
        "removed_lines": 0,
        "redactions": 0,
        "language_confidence": None,
    }
    signals = dict.fromkeys(_SIGNALS)
    return signals | columns | values


def _redact_and_measure(row: Row, text: str, config: CleanConfig) -> None:
    row["text"], found = redact(text, config.redact)
    row["redactions"] += found  # added to those of the title
    stop_words = config.gopher_quality.stop_words.get(row["language"])
    row.update(measure(row["text"], stop_words))


def _cleaned_title(title: str | None, config: CleanConfig) -> tuple[str | None, int]:
    """The title on one line, repaired and redacted like the text, and its number of redactions."""
    line = " ".join((title or "").split())
    line = repaired(line, config.normal_form, config.normalise_addresses)
    line = " ".join(line.split())
    redacted, found = redact(line, config.redact)
    # The cut comes last, because half an e-mail address would not be recognised.
    return redacted[:MAX_TITLE_CHARS] or None, found


def _text_and_title(page: RawPage, config: CleanConfig) -> tuple[str, str | None]:
    """Text and title as the page has them, neither repaired nor redacted."""
    if page.media_type in HTML:
        html = decode(page.body, page.charset)
        return extract(html, precision=config.extractor == "precision")
    if page.media_type in TEXT:
        text = decode(page.body, page.charset)
        is_markdown = "markdown" in page.media_type
        return text, _first_heading(text) if is_markdown else None
    supported = ", ".join(HTML + TEXT)
    raise Rejection("unsupported_media_type", f"{page.media_type}; read are {supported}")


def _first_heading(markdown: str) -> str | None:
    heading = _HEADING.search(markdown)
    if heading and heading.start() < MAX_TITLE_CHARS:
        return heading[1]
    return None
