"""Documents from local files. Order: path, then row; so the same files give the same artifact, and a rerun simply reads again.

Files that could grow while they are read (packed ones, tables, archives, large ones) are read in a process of their own.
"""

from __future__ import annotations

from collections.abc import Callable

from data_contracts import Interrupted
from stages.crawl import formats
from stages.crawl.config import FilesSource
from stages.crawl.items import Begun, Document, Failure, Item
from stages.crawl.rows import Rows
from stages.digests import digest
from stages.execution.apart import MEGABYTES, rows_apart
from stages.report import Report


def collect(source: FilesSource, rows: Rows, report: Report, stop: Callable[[], bool]) -> list[str]:
    """All documents of the files into `rows`; returns notes.

    Raises:
        InputError: For a file of a kind that is not known, that is damaged, may not be read or unpacks to too much.
        Interrupted: At a wish to stop, at once.
    """
    found = source.found()
    files = list(found.files)
    notes = found.notes(source.name)
    for note in notes:
        report.note(note)
    taken = Taken(source.name, rows)
    at = str(files[0])
    if formats.is_small(files):
        items = formats.read(source, files)
    else:
        items = rows_apart(
            formats.read, source, files, what=lambda: at, megabytes=memory(source.max_page_bytes)
        )
    for item in items:
        if stop():
            why = f"stopped by a signal in {at}"
            raise Interrupted(f"crawl source {source.name}", why, "run the same command again")
        if isinstance(item, Begun):
            at = item.path
            report.progress(item.number, len(files), "files")
        elif item is not None:
            taken.add(item)
        if rows.documents[source.name] >= source.max_documents:
            items.close()
            return [
                *notes,
                f"{source.name}: cut short by the limit of {source.max_documents:,} documents, in {at}",
            ]
    report.progress(len(files), len(files), "files")
    return notes


def memory(page_bytes: int) -> int:
    """Megabytes that reading may take: what is usual, and more for those who want longer documents than usual."""
    usual = 16 << 20
    return MEGABYTES + (4 * max(0, page_bytes - usual) >> 20)


class Taken:
    """Writes items as rows. A second record of an address that an archive gave before is a failure."""

    def __init__(self, source: str, rows: Rows):
        self._source, self._rows = source, rows
        self._seen: set[bytes] = (
            set()
        )  # addresses from archives: the only rows whose address is not their place

    def add(self, item: Item) -> None:
        """A row of `documents` or of `failures`."""
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
