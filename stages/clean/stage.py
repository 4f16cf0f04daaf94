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
from stages.clean.document import Page
from stages.clean.guard import kept, release
from stages.execution.shards import map_shards
from stages.report import Facts, Report

SHARD_BYTES = 16 << 20  # of pages, as fetched: what a worker takes at a time
SAMPLES = 3

_COLUMNS = ("id", "url", "source", "license", "body", "media_type", "charset")


@dataclass(frozen=True)
class Shard:
    """Consecutive raw documents. Where it ends depends on their size alone, never on the number of workers."""

    number: int
    batches: tuple[pa.RecordBatch, ...]


@dataclass
class Tally:
    """What came of a shard, or of all of them."""

    bytes_in: int
    totals: Counter[str]  # documents, kept, words, text_bytes, redactions, removed_lines
    rejected: Counter[str]  # reason → documents
    languages: Counter[str]  # of the documents kept
    samples: list[dict[str, Any]]

    def add(self, other: Tally) -> None:
        self.bytes_in += other.bytes_in
        self.totals += other.totals
        self.rejected += other.rejected
        self.languages += other.languages
        self.samples += other.samples[: SAMPLES - len(self.samples)]


def run(config: CleanConfig, *, raw_documents: Artifact, out: Draft, report: Report) -> Facts:
    """Raises ConfigError if there is no language model, InputError if there are no documents."""
    model_path = str(config.model_path())
    total = raw_documents.rows("documents")
    if total == 0:
        failures = raw_documents.rows("failures")
        why = f"0 documents to clean; the crawl tried {failures} addresses and none gave a page"
        raise InputError(
            f"{raw_documents}", why, "look at its failures table and correct the crawl's sources"
        )
    tally = _nothing()
    try:
        for done in map_shards(
            partial(_clean_shard, config, model_path, out), _shards(raw_documents), config.workers
        ):
            tally.add(done)
            report.progress(tally.totals["documents"], total, "documents")
    finally:
        release()  # with one worker it was used in this very process
    return _facts(tally)


def _shards(raw: Artifact) -> Iterator[Shard]:
    number, waiting, size = 0, list[pa.RecordBatch](), 0
    for batch in raw.batches("documents", _COLUMNS, batch_size=64):
        waiting.append(batch)
        size += batch.nbytes
        if size >= SHARD_BYTES:
            yield Shard(number, tuple(waiting))
            number, waiting, size = number + 1, [], 0
    if waiting:
        yield Shard(number, tuple(waiting))


def _clean_shard(config: CleanConfig, model_path: str, out: Draft, shard: Shard) -> Tally:
    """Clean one shard and write its part of both tables."""
    tally = _nothing()
    guard = kept(config, model_path)
    with (
        out.writer("documents", shard.number) as documents,
        out.writer("rejects", shard.number) as rejects,
    ):
        for raw in (row for batch in shard.batches for row in batch.to_pylist()):
            row = guard.clean(Page(raw["body"], raw["media_type"], raw["charset"]))
            row |= {name: raw[name] for name in ("id", "url", "source", "license")}
            tally.bytes_in += len(raw["body"])
            (rejects if "reason" in row else documents).write([row])
            _count(tally, row)
    return tally


def _count(tally: Tally, row: dict[str, Any]) -> None:
    tally.totals["documents"] += 1
    if "reason" in row:
        tally.rejected[row["reason"]] += 1
        return
    tally.totals.update(
        kept=1,
        words=row["words"],
        text_bytes=len(row["text"].encode()),
        redactions=row["redactions"],
        removed_lines=row["removed_lines"],
    )
    tally.languages[row["language"]] += 1
    if len(tally.samples) < SAMPLES:
        tally.samples.append({"title": row["title"], "text": row["text"][:300]})


def _nothing() -> Tally:
    return Tally(0, Counter(), Counter(), Counter(), [])


def _facts(tally: Tally) -> Facts:
    totals = tally.totals
    return Facts(
        figures={
            "documents": totals["documents"],
            "kept": totals["kept"],
            "kept_share": round(totals["kept"] / totals["documents"], 4),
            "bytes_in": tally.bytes_in,
            "text_bytes": totals["text_bytes"],
            "words": totals["words"],
            "removed_lines": totals["removed_lines"],
            "redactions": totals["redactions"],
            "languages": ", ".join(
                f"{code} {count}"
                for code, count in sorted(tally.languages.items(), key=lambda i: (-i[1], i[0]))[:10]
            ),
        },
        rejected=dict(sorted(tally.rejected.items(), key=lambda item: (-item[1], item[0]))),
        samples=tally.samples,
    )
