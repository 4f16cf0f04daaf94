"""Which documents of a table hold which n-grams of the items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pyarrow as pa

from data_contracts import Artifact
from stages.decontaminate.config import DecontaminateConfig
from stages.decontaminate.ngrams import Index, WordHashes
from stages.execution.shards import map_shards
from stages.report import Report

BATCH = 256  # documents a worker scans at once

_WORDS = WordHashes()  # one per process


@dataclass(frozen=True)
class Findings:
    """hits: number of a document in the table → numbers of n-grams it holds, in their order, boilerplate left out.

    boilerplate: n-grams of held-out pages alone that occur in too many documents. spared: documents that hold boilerplate and nothing else.
    """

    hits: dict[int, list[int]]
    boilerplate: set[int]
    spared: int


@cache
def index_of(items: Path, ngram: int, shortest: int) -> Index:
    """The index of an eval_items artifact, one per process. About 400 bytes of memory per n-gram."""
    evidence = [
        text
        for batch in Artifact.at(items).batches("items", ["evidence"])
        for text in batch.column(0).to_pylist()
    ]
    return Index.of(evidence, ngram, shortest)


def scan(
    documents: Artifact, eval_items: Artifact, config: DecontaminateConfig, report: Report
) -> Findings:
    """One pass over the training documents. An n-gram of a benchmark counts in however many it occurs: copies do not make it common.

    Remembers every document that holds such an n-gram, and at most max_document_frequency of each other n-gram.
    """
    always = _of_benchmarks(eval_items, index_of(eval_items.path, config.ngram, config.shortest))
    hits: dict[int, list[int]] = {}
    frequency: Counter[int] = Counter()
    holders: dict[int, list[int]] = {}
    touched = done = 0
    work = partial(_scan_batch, eval_items.path, config.ngram, config.shortest)
    total = documents.rows("train")
    batches = documents.batches("train", ["text"], batch_size=BATCH)
    for found in map_shards(work, batches, config.workers):
        for offset, numbers in found.hits:
            document = done + offset
            touched += 1
            for number in numbers:
                if number in always:
                    hits.setdefault(document, []).append(number)
                    continue
                frequency[number] += 1
                if frequency[number] <= config.max_document_frequency:
                    hits.setdefault(document, []).append(number)
                    holders.setdefault(number, []).append(document)
                elif number in holders:  # now known as boilerplate: forget who had it
                    for holder in holders.pop(number):
                        hits[holder].remove(number)
                        if not hits[holder]:
                            del hits[holder]
        done += found.documents
        report.progress(done, total, "documents")
    boilerplate = {
        number for number, count in frequency.items() if count > config.max_document_frequency
    }
    return Findings(hits, boilerplate, touched - len(hits))


def _of_benchmarks(eval_items: Artifact, index: Index) -> set[int]:
    """Numbers of the n-grams that an item of a benchmark owns, be it with others."""
    origins = [
        origin
        for batch in eval_items.batches("items", ["origin"])
        for origin in batch.column(0).to_pylist()
    ]
    return {
        number
        for number, owners in enumerate(index.owners)
        if any(origins[item] == "benchmark" for item in owners)
    }


@dataclass(frozen=True)
class _Found:
    documents: int
    hits: list[tuple[int, list[int]]]


def _scan_batch(items: Path, ngram: int, shortest: int, batch: pa.RecordBatch) -> _Found:
    index = index_of(items, ngram, shortest)
    texts: Iterator[str] = (text.as_py() for text in batch.column("text"))
    hits = ((offset, index.hits(text, _WORDS)) for offset, text in enumerate(texts))
    return _Found(batch.num_rows, [(offset, numbers) for offset, numbers in hits if numbers])
