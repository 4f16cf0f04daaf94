"""The exception with which a cleaning step rejects a document."""

from __future__ import annotations


class Rejection(Exception):  # noqa: N818 -- an expected outcome, not an error
    """A document does not pass a cleaning step.

    Attributes:
        reason: Name of the rule that rejects the document.
        detail: The measured value and the threshold it missed.
        text: The text of the document as far as it was produced.
    """

    def __init__(self, reason: str, detail: str, text: str = ""):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.text = text
