"""Documents from local files, in the order of path and row.

So the same files give the same artifact, and a rerun reads them again. Files that may take much
memory (packed ones, tables, archives, large ones) are read in a separate process.
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
    """Write all documents of the files to `rows`.

    Returns:
        Notes for the reader of the artifact.

    Raises:
        InputError: A file is of an unknown kind, is damaged, may not be read, or unpacks to too
            much.
        Interrupted: A signal asked to stop.
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
            formats.read,
            source,
            files,
            what=lambda: at,
            megabytes=memory(source.limits.max_page_bytes),
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
        if rows.documents[source.name] >= source.limits.max_documents:
            items.close()
            limit = f"cut short by the limit of {source.limits.max_documents:,} documents, in {at}"
            return [*notes, f"{source.name}: {limit}"]
    report.progress(len(files), len(files), "files")
    return notes


def memory(page_bytes: int) -> int:
    """Megabytes that reading may take: more for documents longer than usual."""
    usual = 16 << 20
    return MEGABYTES + (4 * max(0, page_bytes - usual) >> 20)


class Taken:
    """Writes items as rows. A second record of an address in archives is a failure."""

    def __init__(self, source: str, rows: Rows):
        self._source, self._rows = source, rows
        # Addresses from archives. All other rows are addressed by file and number.
        self._seen: set[bytes] = set()

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
