"""Documents from a data set that Hugging Face `datasets` streams: nothing is downloaded whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from os.path import expanduser
from typing import Any

from data_contracts import InputError, Interrupted
from stages.crawl.config import DatasetSource
from stages.crawl.files_source import take_text
from stages.crawl.rows import Rows
from stages.report import Report


def collect(source: DatasetSource, rows: Rows, report: Report, stop: Callable[[], bool]) -> list[str]:
    """The first `max_documents` rows into `rows`; returns notes.

    Raises InputError if the data set cannot be had or has no such column, Interrupted at a wish to stop.
    """
    where = f"crawl source {source.name}"
    if source.folder is not None:
        base = source.folder.as_uri()
    else:
        base = f"https://huggingface.co/datasets/{source.dataset}" if "/" in source.dataset else f"dataset:{source.dataset}"
    for number, row in _numbered(source, where):
        if stop():
            raise Interrupted(where, f"stopped by a signal at row {number:,}", "run the same command again: it reads from the start")
        if source.text_field not in row:
            fix = f"set text_field to one of: {', '.join(row)}"
            raise InputError(where, f"{source.dataset} has no column {source.text_field!r}", fix)
        take_text(source, rows, f"{base}/{source.subset or 'default'}/{source.split}#{number}", row[source.text_field], "")
        report.progress(number, source.max_documents, "rows")
        if number >= source.max_documents:
            return [f"{source.name}: cut short by the limit of {source.max_documents:,} rows"]
    return []


def _numbered(source: DatasetSource, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows from 1. Only errors of reading are told as those of the data set."""
    from datasets import load_dataset  # seconds to import, and only this source needs it

    number = 0
    try:
        stream = load_dataset(
            str(source.folder or source.dataset), source.subset or None, split=source.split, revision=source.revision or None,
            data_files=[expanduser(file) for file in source.data_files] or None, streaming=True,
        )  # fmt: skip
        for number, row in enumerate(stream, 1):
            yield number, row
    except (OSError, ValueError, RuntimeError) as error:  # what `datasets` raises for absent, private and broken data sets
        why = f"{source.dataset} cannot be read at row {number + 1:,}: {type(error).__name__}: {error}"[:600]
        raise InputError(where, why, "check the name, the revision and the network; gated data sets need `hf auth login`") from error
