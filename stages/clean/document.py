"""Takes one page through every cleaning step, in the order of this file."""

from __future__ import annotations

import re

from stages.clean.characters import repaired
from stages.clean.config import CleanConfig
from stages.clean.decoding import decode
from stages.clean.html import extract
from stages.clean.language import identify
from stages.clean.lines import kept_lines
from stages.clean.page import CleanedPage, RawPage
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


def cleaned(raw: RawPage, config: CleanConfig, model_path: str) -> CleanedPage:
    """Clean one page.

    Args:
        raw: The page as it was fetched.
        config: The settings of the stage.
        model_path: Path of the fastText model that identifies languages.
    """
    page = CleanedPage()
    try:
        _clean_into(page, raw, config, model_path)
    except Rejection as rejection:
        page.reason = rejection.reason
        page.detail = rejection.detail
        page.text = rejection.text or page.text
        if page.text and not page.words:
            # A document that was rejected half-way has its signals, too.
            _redact_and_measure(page, page.text, config)
    return page


def _clean_into(page: CleanedPage, raw: RawPage, config: CleanConfig, model_path: str) -> None:
    text, title = _text_and_title(raw, config)
    page.title, page.redactions = _cleaned_title(title, config)
    text = repaired(text, config.normal_form, config.normalise_addresses)
    page.text = text
    if not text.strip():
        raise Rejection("empty", f"no text in {len(raw.body)} bytes of {raw.media_type}")
    page.language, page.language_confidence = identify(text, model_path)
    failure = failing_language(page.language, page.language_confidence, config.language)
    if failure:
        raise Rejection(*failure)
    if "c4" in config.rules:
        text, page.removed_lines = kept_lines(text, config.c4)
    _redact_and_measure(page, text, config)
    failure = first_failing(page.columns(), config)
    if failure:
        raise Rejection(*failure, text=page.text)


def _redact_and_measure(page: CleanedPage, text: str, config: CleanConfig) -> None:
    page.text, found = redact(text, config.redact)
    page.redactions += found  # added to those of the title
    stop_words = config.gopher_quality.stop_words.get(page.language)
    page.signals = measure(page.text, stop_words)


def _cleaned_title(title: str | None, config: CleanConfig) -> tuple[str | None, int]:
    """Return the title on one line, cleaned like the text, and its number of redactions."""
    line = " ".join((title or "").split())
    line = repaired(line, config.normal_form, config.normalise_addresses)
    line = " ".join(line.split())
    redacted, found = redact(line, config.redact)
    # The cut comes last, because half an e-mail address would not be recognised.
    return redacted[:MAX_TITLE_CHARS] or None, found


def _text_and_title(raw: RawPage, config: CleanConfig) -> tuple[str, str | None]:
    """Return text and title as the page has them, neither repaired nor redacted."""
    if raw.media_type in HTML:
        html = decode(raw.body, raw.charset)
        return extract(html, precision=config.extractor == "precision")
    if raw.media_type in TEXT:
        text = decode(raw.body, raw.charset)
        is_markdown = "markdown" in raw.media_type
        return text, _first_heading(text) if is_markdown else None
    supported = ", ".join(HTML + TEXT)
    raise Rejection("unsupported_media_type", f"{raw.media_type}; read are {supported}")


def _first_heading(markdown: str) -> str | None:
    heading = _HEADING.search(markdown)
    if heading and heading.start() < MAX_TITLE_CHARS:
        return heading[1]
    return None
