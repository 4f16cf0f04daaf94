"""What reading a source yields before it is written: documents, failures, notes, progress."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

MediaType = Literal["text/plain", "text/markdown", "text/html"]


@dataclass(frozen=True)
class Document:
    """A row of `documents`.

    Attributes:
        url: Its address.
        body: Its bytes.
        columns: The other columns.
        fetch: The columns of its row of `fetches`, if it was fetched.
    """

    url: str
    body: bytes
    columns: dict[str, Any]
    fetch: dict[str, datetime | str | None] | None = None


@dataclass(frozen=True)
class Failure:
    """A row of `failures`.

    Attributes:
        url: The address.
        reason: One of the contract's reasons.
        detail: What exactly is wrong.
        status: The HTTP status, if there was a response.
        claims: A later record of the same address counts as a repetition of this one.
        fix: What repairs it, if that does not follow from the reason.
    """

    url: str
    reason: str
    detail: str
    status: int | None = None
    claims: bool = False
    fix: str = ""


@dataclass(frozen=True)
class Begun:
    """The items that follow come from this file; number counts from 0."""

    number: int
    path: str


@dataclass(frozen=True)
class Note:
    """A sentence for the reader of the artifact."""

    text: str


Item = Document | Failure | Begun | Note
Items = Generator[Item | None, None, None]  # None asks to send the items that wait


@dataclass(frozen=True)
class Taking:
    """How rows of tables become documents."""

    text_field: str
    media_type: MediaType
    most_bytes: int

    def row(self, url: str, text: object) -> Item:
        """Return a document if the row holds text or bytes, else a failure."""
        if isinstance(text, str):
            text = text.encode("utf-8", "surrogatepass")
        if not isinstance(text, bytes):
            found = f"{self.text_field!r} is a {type(text).__name__}, not text"
            return Failure(url, "unreadable_row", found)
        return self.whole(url, text, self.media_type, "utf-8")

    def whole(self, url: str, body: bytes, media_type: str, charset: str | None) -> Item:
        """Return a document, cut at the limit, if there is anything in it."""
        if not body.strip():
            return Failure(url, "empty", "holds nothing but blanks")
        is_cut = len(body) > self.most_bytes
        columns = {"media_type": media_type, "charset": charset, "truncated": is_cut}
        return Document(url, body[: self.most_bytes], columns)
