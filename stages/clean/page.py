"""A page before and after cleaning, as it crosses from process to process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stages.clean.language import UNDETERMINED
from stages.clean.signals import SIGNALS, Signals


@dataclass(frozen=True)
class RawPage:
    """The part of a raw document that cleaning needs."""

    body: bytes
    media_type: str
    charset: str | None


@dataclass
class CleanedPage:
    """What cleaning made of a page: a document, or a reject.

    Attributes:
        title: On one line, redacted.
        text: Redacted. Of a reject, the text as far as it was produced.
        language: ISO 639 code.
        language_confidence: The probability of the language; None for a text without letters.
        removed_lines: Lines that C4's rules removed.
        redactions: Placeholders in title and text.
        signals: Values by name; empty until the text is measured.
        reason: Why the page is rejected, as a short name; empty if it is kept.
        detail: The measured value and the threshold that it missed.
    """

    title: str | None = None
    text: str = ""
    language: str = UNDETERMINED
    language_confidence: float | None = None
    removed_lines: int = 0
    redactions: int = 0
    signals: Signals = field(default_factory=dict)
    reason: str = ""
    detail: str = ""

    @property
    def words(self) -> int:
        """Number of words of the text; 0 until it is measured."""
        return int(self.signals.get("words") or 0)

    def columns(self) -> dict[str, Any]:
        """Return the columns that clean produces. Only rejects have `reason` and `detail`."""
        columns: dict[str, Any] = dict.fromkeys(SIGNALS)
        columns.update(self.signals)
        columns.update(
            title=self.title,
            text=self.text,
            language=self.language,
            language_confidence=self.language_confidence,
            words=self.words,
            removed_lines=self.removed_lines,
            redactions=self.redactions,
        )
        if self.reason:
            columns["reason"] = self.reason
            columns["detail"] = self.detail
        return columns
