"""Writes what a reader of files or of a data set found, and says how much memory it may take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.crawl.items import Document, Failure, Item
from stages.digests import digest
from stages.execution.apart import MEGABYTES

if TYPE_CHECKING:
    from stages.crawl.rows import Rows


def memory(page_bytes: int) -> int:
    """Return the megabytes that reading may take: more for documents longer than usual."""
    usual = 16 << 20
    return MEGABYTES + (4 * max(0, page_bytes - usual) >> 20)


class Taken:
    """Writes items as rows. A second record of an address in archives is a failure."""

    def __init__(self, source: str, rows: Rows):
        self._source, self._rows = source, rows
        # Addresses from archives. All other rows are addressed by file and number.
        self._seen: set[bytes] = set()

    def add(self, item: Item) -> None:
        """Add a row of `documents` or of `failures`."""
        if isinstance(item, Document):
            if item.fetch is None or self._is_new(item.url):
                self._rows.document(
                    self._source, item.url, item.body, fetch=item.fetch, **item.columns
                )
        elif isinstance(item, Failure) and (not item.claims or self._is_new(item.url)):
            self._rows.failure(
                self._source,
                item.url,
                item.reason,
                item.detail,
                status=item.status,
                fix=item.fix,
            )

    def _is_new(self, url: str) -> bool:
        key = bytes.fromhex(digest(url))
        if key in self._seen:
            detail = "an earlier record has the same address"
            self._rows.failure(self._source, url, "duplicate_address", detail, status=200)
            return False
        self._seen.add(key)
        return True
