"""clean: raw_documents → clean_documents. Pages become text, or rejects with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from data_contracts import Artifact, Draft, InputError
from stages.clean.config import CleanConfig
from stages.clean.guard import shared_process, stop_shared_process
from stages.clean.page import CleanedPage, RawPage
from stages.execution.processes import local
from stages.execution.shards import map_shards
from stages.report import Facts, Report

SHARD_BYTES = 16 << 20  # of pages as fetched: what a worker takes at a time
MAX_SAMPLES = 3
MAX_LANGUAGES = 10  # in the figures

_KEPT_COLUMNS = ("id", "url", "source", "license")  # as they are in raw_documents
_COLUMNS = (*_KEPT_COLUMNS, "body", "media_type", "charset")


@dataclass(frozen=True)
class PageShard:
    """Consecutive raw documents.

    Where a shard ends depends on the size of the documents alone, never on the number of workers.
    """

    number: int
    batches: tuple[pa.RecordBatch, ...]


@dataclass
class CleanCounts:
    """What became of the documents of one shard or of several.

    Attributes:
        bytes_in: Bytes of the pages as fetched.
        totals: Documents, and of those kept: kept, words, text_bytes, redactions, removed_lines.
        rejected: Documents by reason.
        languages: Documents kept by language.
        samples: Title and beginning of the first documents kept.
    """

    bytes_in: int
    totals: Counter[str]
    rejected: Counter[str]
    languages: Counter[str]
    samples: list[dict[str, Any]]

    @classmethod
    def empty(cls) -> CleanCounts:
        return cls(0, Counter(), Counter(), Counter(), [])

    def count(self, page: CleanedPage) -> None:
        """Count one document that was kept or rejected."""
        self.totals["documents"] += 1
        if page.reason:
            self.rejected[page.reason] += 1
            return
        self.totals.update(
            kept=1,
            words=page.words,
            text_bytes=len(page.text.encode()),
            redactions=page.redactions,
            removed_lines=page.removed_lines,
        )
        self.languages[page.language] += 1
        if len(self.samples) < MAX_SAMPLES:
            self.samples.append({"title": page.title, "text": page.text[:300]})

    def add(self, other: CleanCounts) -> None:
        self.bytes_in += other.bytes_in
        self.totals += other.totals
        self.rejected += other.rejected
        self.languages += other.languages
        self.samples += other.samples[: MAX_SAMPLES - len(self.samples)]


def run(config: CleanConfig, *, raw_documents: Artifact, out: Draft, report: Report) -> Facts:
    """Clean every page; each becomes a document or a reject.

    Raises:
        ConfigError: There is no language model.
        InputError: There are no documents.
    """
    config.model_path()  # fails now rather than in every worker
    total = raw_documents.rows("documents")
    if total == 0:
        failures = raw_documents.rows("failures")
        raise InputError(
            f"{raw_documents}",
            f"0 documents to clean; the crawl tried {failures} addresses and none gave a page",
            "look at its failures table and correct the crawl's sources",
        )
    counts = CleanCounts.empty()
    clean_shard = partial(_clean_shard, config, out)
    try:
        for done in map_shards(clean_shard, _shards(raw_documents), local(config.workers)):
            counts.add(done)
            report.progress(counts.totals["documents"], total, "documents")
    finally:
        stop_shared_process()  # with one worker, it was started by this very process
    return _facts(counts)


def _shards(raw: Artifact) -> Iterator[PageShard]:
    number = 0
    size = 0
    waiting: list[pa.RecordBatch] = []
    for batch in raw.batches("documents", _COLUMNS, batch_size=64):
        waiting.append(batch)
        size += batch.nbytes
        if size >= SHARD_BYTES:
            yield PageShard(number, tuple(waiting))
            number += 1
            size = 0
            waiting = []
    if waiting:
        yield PageShard(number, tuple(waiting))


def _clean_shard(config: CleanConfig, out: Draft, shard: PageShard) -> CleanCounts:
    """Clean one shard and write its part of both tables."""
    counts = CleanCounts.empty()
    model_path = str(config.model_path())  # where this machine has it
    process = shared_process(config, model_path)
    with (
        out.writer("documents", shard.number) as documents,
        out.writer("rejects", shard.number) as rejects,
    ):
        for raw in _rows(shard):
            page = process.clean(RawPage(raw["body"], raw["media_type"], raw["charset"]))
            row = page.columns()
            for name in _KEPT_COLUMNS:
                row[name] = raw[name]
            writer = rejects if page.reason else documents
            writer.write([row])
            counts.bytes_in += len(raw["body"])
            counts.count(page)
    return counts


def _rows(shard: PageShard) -> Iterator[dict[str, Any]]:
    for batch in shard.batches:
        yield from batch.to_pylist()


def _facts(counts: CleanCounts) -> Facts:
    totals = counts.totals
    languages = _most_frequent_first(counts.languages)[:MAX_LANGUAGES]
    return Facts(
        figures={
            "documents": totals["documents"],
            "kept": totals["kept"],
            "kept_share": round(totals["kept"] / totals["documents"], 4),
            "bytes_in": counts.bytes_in,
            "text_bytes": totals["text_bytes"],
            "words": totals["words"],
            "removed_lines": totals["removed_lines"],
            "redactions": totals["redactions"],
            "languages": ", ".join(f"{code} {count}" for code, count in languages),
        },
        rejected=dict(_most_frequent_first(counts.rejected)),
        samples=counts.samples,
    )


def _most_frequent_first(counter: Counter[str]) -> list[tuple[str, int]]:
    """Return the names and counts; names with equal counts are in alphabetical order."""
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))
