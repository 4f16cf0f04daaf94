"""Documents from local files, in the order of path and row.

So the same files give the same artifact, and a rerun reads them again. Files that may take much
memory (packed ones, tables, archives, large ones) are read in a separate process.
"""

from __future__ import annotations

from collections.abc import Callable

from data_contracts import Interrupted
from stages.crawl import formats
from stages.crawl.config import FilesSource
from stages.crawl.items import Begun
from stages.crawl.rows import Rows
from stages.crawl.taken import Taken, memory
from stages.execution.apart import rows_apart
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
