"""Finds out which documents of a table contain which n-grams of the items."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache, partial

import pyarrow as pa

from data_contracts import Artifact, ArtifactKey, open_artifact
from stages.decontaminate.config import DecontaminateConfig
from stages.decontaminate.ngrams import NgramIndex
from stages.execution.processes import local
from stages.execution.shards import map_shards
from stages.report import Report
from stages.text.ngrams import WordHashes

BATCH = 256  # documents that a worker scans at once

_word_hashes = WordHashes()  # one cache per process


@dataclass(frozen=True)
class Findings:
    """What the scan of a table found.

    Attributes:
        hits: Number of a document in the table → numbers of the n-grams that it contains, in their
            order, without boilerplate.
        boilerplate: N-grams of held-out pages alone that occur in too many documents.
        spared: Number of documents that contain boilerplate and no other n-gram.
    """

    hits: dict[int, list[int]]
    boilerplate: set[int]
    spared: int


@cache
def index_of(items: ArtifactKey, ngram: int, shortest: int) -> NgramIndex:
    """Build the index of an eval_items artifact, once per process.

    It takes about 400 bytes of memory per n-gram.

    Args:
        items: Path of the artifact.
        ngram: Words in an n-gram.
        shortest: Words below which an item does not count.
    """
    evidence = column_values(open_artifact(items), "evidence")
    return NgramIndex.of(evidence, ngram, shortest)


def column_values(eval_items: Artifact, column: str) -> list[str]:
    """Return a column of all items, in their order."""
    values: list[str] = []
    for batch in eval_items.batches("items", [column]):
        values += batch.column(0).to_pylist()
    return values


def scan(
    documents: Artifact, eval_items: Artifact, config: DecontaminateConfig, report: Report
) -> Findings:
    """Scan the training documents once.

    An n-gram of a benchmark counts in every document that contains it: copies do not make it
    boilerplate.

    Args:
        documents: The artifact unique_documents, whose table `train` is scanned.
        eval_items: The items to look for.
        config: The settings of the stage.
        report: Receives the progress.
    """
    index = index_of(eval_items.key, config.ngram, config.shortest)
    hits = _Hits(_benchmark_ngrams(eval_items, index), config.max_document_frequency)
    scan_batch = partial(_scan_batch, eval_items.key, config.ngram, config.shortest)
    total = documents.rows("train")
    batches = documents.batches("train", ["text"], batch_size=BATCH)
    done = 0
    for found in map_shards(scan_batch, batches, local(config.workers)):
        for offset, ngrams in found.hits:
            hits.add(done + offset, ngrams)
        done += found.documents
        report.progress(done, total, "documents")
    return hits.findings()


class _Hits:
    """N-grams by document.

    Remembers every document with an n-gram of a benchmark, and at most `max_document_frequency`
    documents with each other n-gram.
    """

    def __init__(self, of_benchmarks: set[int], max_document_frequency: int):
        self._of_benchmarks = of_benchmarks
        self._max_document_frequency = max_document_frequency
        self._hits: defaultdict[int, list[int]] = defaultdict(list)
        self._frequency: Counter[int] = Counter()
        # Documents by n-gram, if it is not one of a benchmark.
        self._holders: defaultdict[int, list[int]] = defaultdict(list)
        self._documents = 0

    def add(self, document: int, ngrams: list[int]) -> None:
        """Add a document.

        Args:
            document: Its number in the table.
            ngrams: The numbers of the n-grams that it contains.
        """
        self._documents += 1
        for ngram in ngrams:
            if ngram in self._of_benchmarks:
                self._hits[document].append(ngram)
                continue
            self._frequency[ngram] += 1
            if self._frequency[ngram] <= self._max_document_frequency:
                self._hits[document].append(ngram)
                self._holders[ngram].append(document)
            elif ngram in self._holders:
                self._forget(ngram)

    def findings(self) -> Findings:
        """Return what was found in all documents that were added."""
        boilerplate = set()
        for ngram, count in self._frequency.items():
            if count > self._max_document_frequency:
                boilerplate.add(ngram)
        spared = self._documents - len(self._hits)
        return Findings(dict(self._hits), boilerplate, spared)

    def _forget(self, ngram: int) -> None:
        """Remove an n-gram that turned out to be boilerplate from the documents with it."""
        for document in self._holders.pop(ngram):
            self._hits[document].remove(ngram)
            if not self._hits[document]:
                del self._hits[document]


def _benchmark_ngrams(eval_items: Artifact, index: NgramIndex) -> set[int]:
    """Return the numbers of the n-grams of benchmarks' items; others may have them, too."""
    origins = column_values(eval_items, "origin")
    ngrams = set()
    for ngram, owners in enumerate(index.owners):
        if any(origins[item] == "benchmark" for item in owners):
            ngrams.add(ngram)
    return ngrams


@dataclass(frozen=True)
class _BatchHits:
    """The n-grams in a batch of documents.

    Attributes:
        documents: Number of documents in the batch.
        hits: Position and n-grams of those that contain any.
    """

    documents: int
    hits: list[tuple[int, list[int]]]


def _scan_batch(items: ArtifactKey, ngram: int, shortest: int, batch: pa.RecordBatch) -> _BatchHits:
    index = index_of(items, ngram, shortest)
    hits = []
    for offset, text in enumerate(batch.column("text")):
        ngrams = index.hits(text.as_py(), _word_hashes)
        if ngrams:
            hits.append((offset, ngrams))
    return _BatchHits(batch.num_rows, hits)
