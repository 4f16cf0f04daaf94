"""Collect raw documents from every source of the settings, with the evidence of how each was had."""

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

    Raises InputError if a source has nothing to offer, Interrupted at SIGTERM; a rerun then continues.
    """
    began = time.monotonic()
    notes: list[str] = []
    with stop_requested() as stop, Rows(out) as rows:
        for source in config.sources:
            if isinstance(source, FilesSource):
                told = files_source.collect(source, rows, report, stop)
            elif isinstance(source, DatasetSource):
                told = dataset_source.collect(source, rows, report, stop)
            else:
                told = web_source.collect(source, out, rows, report, stop)
            _refuse_nothing(source, rows, told)
            notes += told
    seconds = time.monotonic() - began
    rejected: dict[str, int] = {}
    for reasons in rows.failed.values():
        for reason, count in sorted(reasons.items()):
            rejected[reason] = rejected.get(reason, 0) + count
    figures = {f"documents_{name}": count for name, count in rows.documents.items()}
    return Facts(
        figures={
            "documents": rows.documents.total(), **figures, "megabytes": round(rows.bytes / 1e6, 2), "truncated": rows.truncated,
            "seconds": round(seconds, 1), "documents_per_second": round(rows.documents.total() / seconds, 1),
        },
        rejected=rejected,
        notes=notes,
    )  # fmt: skip


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
