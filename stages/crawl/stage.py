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
    seconds = time.monotonic() - began
    rejected: dict[str, int] = {}
    for reasons in rows.failed.values():
        for reason, count in sorted(reasons.items()):
            rejected[reason] = rejected.get(reason, 0) + count
    documents = rows.documents.total()
    by_source = {f"documents_{name}": count for name, count in rows.documents.items()}
    return Facts(
        figures={
            "documents": documents,
            **by_source,
            "megabytes": round(rows.bytes / 1e6, 2),
            "truncated": rows.truncated,
            "seconds": round(seconds, 1),
            "documents_per_second": round(documents / seconds, 1),
        },
        rejected=rejected,
        notes=notes,
    )


def _refuse_nothing(source: Source, rows: Rows, notes: list[str]) -> None:
    if rows.documents[source.name]:
        return
    where, failed = f"crawl source {source.name}", rows.failed.get(source.name, Counter())
    if notes and not failed:  # a limit was reached before anything was asked
        raise InputError(
            where, f"0 documents ({'; '.join(notes)})", "raise that limit; then run it again"
        )
    if not failed:
        is_table = isinstance(source, FilesSource | DatasetSource)
        none = "it holds no rows and no pages" if is_table else "nothing was found to ask for"
        raise InputError(where, f"0 documents ({none})", f"{advice(source, '')}; then run it again")
    counts = ", ".join(f"{reason} {count}" for reason, count in failed.items())
    reason, _ = failed.most_common(1)[0]
    fix, _ = rows.fixes[source.name, reason].most_common(1)[0]
    example = rows.examples[source.name, reason, fix]
    raise InputError(
        where,
        f"0 documents ({counts}); for example {example}",
        f"{fix or advice(source, reason)}; then run it again",
    )
