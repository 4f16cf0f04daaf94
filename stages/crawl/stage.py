"""Collect raw documents from every source, with the evidence of where each came from."""

from __future__ import annotations

import time
from collections import Counter

from data_contracts import Draft, InputError
from stages.crawl import dataset_source, files_source, web_source
from stages.crawl.config import CrawlConfig, DatasetSource, FilesSource, Source
from stages.crawl.nothing import advice
from stages.crawl.rows import Rows
from stages.execution.interruption import stop_requested
from stages.report import Facts, Report


def run(config: CrawlConfig, *, out: Draft, report: Report) -> Facts:
    """Write `documents`, `failures` and, for what was fetched over HTTP, WARC files.

    Raises:
        InputError: A source gives no document.
        Interrupted: A signal asked to stop; a rerun continues.
    """
    began = time.monotonic()
    notes: list[str] = []
    with stop_requested() as stop, Rows(out) as rows:
        for source in config.sources:
            if isinstance(source, FilesSource):
                source_notes = files_source.collect(source, rows, report, stop)
            elif isinstance(source, DatasetSource):
                source_notes = dataset_source.collect(source, rows, report, stop)
            else:
                source_notes = web_source.collect(source, out, rows, report, stop)
            _refuse_nothing(source, rows, source_notes)
            notes += source_notes
    return _facts(rows, time.monotonic() - began, notes)


def _facts(rows: Rows, seconds: float, notes: list[str]) -> Facts:
    rejected: dict[str, int] = {}
    for reasons in rows.failed.values():
        for reason, count in sorted(reasons.items()):
            rejected[reason] = rejected.get(reason, 0) + count
    documents = rows.documents.total()
    figures: dict[str, float | int | str | bool | None] = {"documents": documents}
    for name, count in rows.documents.items():
        figures[f"documents_{name}"] = count
    figures["megabytes"] = round(rows.bytes / 1e6, 2)
    figures["truncated"] = rows.truncated
    figures["seconds"] = round(seconds, 1)
    figures["documents_per_second"] = round(documents / seconds, 1)
    return Facts(figures=figures, rejected=rejected, notes=notes)


def _refuse_nothing(source: Source, rows: Rows, notes: list[str]) -> None:
    """Check that a source gave a document.

    Raises:
        InputError: It gave none. The message says why, and what repairs it.
    """
    if rows.documents[source.name]:
        return
    where = f"crawl source {source.name}"
    failed = rows.failed.get(source.name, Counter())
    if notes and not failed:  # a limit was reached before anything was asked
        why = f"0 documents ({'; '.join(notes)})"
        raise InputError(where, why, "raise that limit; then run it again")
    if not failed:
        why = "0 documents (nothing was found to ask for)"
        if isinstance(source, FilesSource | DatasetSource):
            why = "0 documents (it holds no rows and no pages)"
        raise InputError(where, why, f"{advice(source, '')}; then run it again")
    counts = ", ".join(f"{reason} {count}" for reason, count in failed.items())
    reason, _ = failed.most_common(1)[0]
    fix, _ = rows.fixes[source.name, reason].most_common(1)[0]
    example = rows.examples[source.name, reason, fix]
    raise InputError(
        where,
        f"0 documents ({counts}); for example {example}",
        f"{fix or advice(source, reason)}; then run it again",
    )
