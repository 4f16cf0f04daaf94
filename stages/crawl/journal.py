"""An append-only journal of a crawl: one JSON line per finished address. A rerun continues from it.

A line is written after the archive has the page, and both reach the operating system before the
next step. So a killed process loses only the requests that were under way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast


class JournalEntry(TypedDict):
    """What became of one address.

    Attributes:
        kind: `page`: it was fetched. `moved`: it redirects. `failed`: it gave no document; a page
            that opts out may have links all the same.
        url: The address.
        to: Where it redirects to.
        row: The columns of its row in documents.
        fetch: The columns of its row in fetches.
        record: Its position in the archive.
        links: Its links within the scope of the crawl.
        bytes: Size of its body.
        reason: Why it gave no document, as a short name.
        detail: What exactly is wrong.
        status: The HTTP status, if there was a response.
        asked: False if no request was made, because of robots.txt or because the host was given up.
    """

    kind: Literal["page", "moved", "failed"]
    url: str
    to: NotRequired[str]
    row: NotRequired[dict[str, Any]]
    fetch: NotRequired[dict[str, Any]]
    record: NotRequired[list[int]]
    links: NotRequired[list[str]]
    bytes: NotRequired[int]
    reason: NotRequired[str]
    detail: NotRequired[str]
    status: NotRequired[int | None]
    asked: NotRequired[bool]


class Journal:
    """Lines are addressed by their byte offset."""

    def __init__(self, path: Path):
        self._path = path
        self._file = path.open("a+b")

    def replay(self) -> Iterator[tuple[int, int, JournalEntry]]:
        """Yield offset, next offset and entry of every line up to the first torn one."""
        offset = 0
        with self._path.open("rb") as file:
            for line in file:
                try:
                    entry = json.loads(line[: line.index(b"\n")])
                except ValueError:  # a torn line: the process or the machine died while writing
                    return
                end = offset + len(line)
                yield offset, end, cast(JournalEntry, entry)
                offset = end

    def cut(self, offset: int) -> None:
        """Remove everything from `offset` on."""
        self._file.truncate(offset)

    def append(self, entry: JournalEntry) -> int:
        """Append an entry. Returns the offset of the new line."""
        offset = self._file.seek(0, os.SEEK_END)
        self._file.write(_line(entry))
        self._file.flush()
        return offset

    def at(self, offset: int) -> JournalEntry:
        self._file.seek(offset)
        return cast(JournalEntry, json.loads(self._file.readline()))

    def forget(self, unwanted: Callable[[JournalEntry], bool]) -> None:
        """Drop entries, so that a rerun asks for their addresses again. All offsets change."""
        kept = self._path.with_suffix(".kept")
        with kept.open("wb") as file:
            for _, _, entry in self.replay():
                if not unwanted(entry):
                    file.write(_line(entry))
        self._file.close()
        kept.replace(self._path)
        self._file = self._path.open("a+b")

    def close(self) -> None:
        if self._file.closed:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def _line(entry: JournalEntry) -> bytes:
    text = json.dumps(entry, ensure_ascii=True, separators=(",", ":"))
    return text.encode() + b"\n"
