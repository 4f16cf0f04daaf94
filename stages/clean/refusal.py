"""How a step says that a document cannot be cleaned."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818 -- not an error: a document with a reason
    """reason: name of the rule. detail: the value and what would have been allowed. text: as far as it was made."""

    def __init__(self, reason: str, detail: str, text: str = ""):
        super().__init__(reason, detail)
        self.reason, self.detail, self.text = reason, detail, text
