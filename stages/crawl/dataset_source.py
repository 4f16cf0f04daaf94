"""Documents from a data set that Hugging Face `datasets` streams, read in a separate process."""

from __future__ import annotations

from collections.abc import Callable

from data_contracts import Interrupted
from stages.crawl import dataset_rows
from stages.crawl.config import DatasetSource
from stages.crawl.items import Items, Note
from stages.crawl.rows import Rows
from stages.crawl.taken import Taken, memory
from stages.execution.apart import rows_apart
from stages.report import Report


def collect(
    source: DatasetSource, rows: Rows, report: Report, stop: Callable[[], bool]
) -> list[str]:
    """Write the first `max_documents` rows to `rows`.

    Returns:
        Notes for the reader of the artifact.

    Raises:
        InputError: The data set is not available, has no such column, or takes too much memory.
        Interrupted: A signal asked to stop.
    """
    where = f"crawl source {source.name}"
    found = source.found()
    notes = found.notes(source.name)
    taken = Taken(source.name, rows)
    number = 0
    items: Items = rows_apart(
        dataset_rows.read,
        source,
        _base(source),
        [str(path) for path in found.files],
        what=lambda: f"{where}: {source.dataset} after row {number:,}",
        megabytes=memory(source.limits.max_page_bytes),
        libraries=("datasets",),
    )
    for item in items:
        if stop():
            raise Interrupted(
                where,
                f"stopped by a signal after row {number:,}",
                "run the same command again: it reads from the start",
            )
        if isinstance(item, Note):
            notes.append(item.text)
        elif item is not None:
            number += 1
            taken.add(item)
            report.progress(number, source.limits.max_documents, "rows")
    for note in notes:
        report.note(note)
    if number >= source.limits.max_documents:
        notes.append(
            f"{source.name}: cut short by the limit of {source.limits.max_documents:,} rows"
        )
    return notes


def _base(source: DatasetSource) -> str:
    if source.folder is not None:
        return source.folder.as_uri()
    if "/" in source.dataset:
        return f"https://huggingface.co/datasets/{source.dataset}"
    return f"dataset:{source.dataset}"
