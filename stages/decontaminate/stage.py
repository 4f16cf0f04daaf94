"""decontaminate: unique_documents.train, eval_items → training_documents.

Documents that contain an item become rejects, with the item that they hit.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa

from data_contracts import Artifact, Draft, InputError
from stages.decontaminate.config import DecontaminateConfig
from stages.decontaminate.ngrams import NgramIndex
from stages.decontaminate.scan import Findings, column_values, index_of, scan
from stages.report import Facts, Report

REASON = "contaminated"
MAX_SAMPLES = 5
# Of documents in memory: about what one file of each table is made of.
SHARD_BYTES = 512 << 20


def run(
    config: DecontaminateConfig,
    *,
    unique_documents: Artifact,
    eval_items: Artifact,
    out: Draft,
    report: Report,
) -> Facts:
    """Find shared n-grams, then write each document to its table, in the order of the input.

    Args:
        config: The settings.
        unique_documents: The documents, of which those of table `train` are read.
        eval_items: The items to look for.
        out: The draft that is written to.
        report: Receives the progress.

    Raises:
        InputError: There are no documents, or none is left.
    """
    if not unique_documents.rows("train"):
        heldout = unique_documents.rows("heldout")
        duplicates = unique_documents.rows("rejects")
        raise InputError(
            f"{unique_documents}.train",
            f"0 documents for training ({heldout} held out, {duplicates} duplicates)",
            "lower dedup.heldout_share or give the crawl more pages",
        )
    index = index_of(eval_items.key, config.ngram, config.shortest)
    items = column_values(eval_items, "id")
    found = scan(unique_documents, eval_items, config, report)
    kept = _write(unique_documents, index, items, found, out)
    if not kept:
        raise InputError(
            f"{unique_documents}.train",
            f"all {len(found.hits)} documents share {config.ngram} words in a row with an item, "
            "so none is left to train on",
            "raise decontaminate.ngram, lower decontaminate.max_document_frequency, or evaluate on "
            "other pages or benchmarks",
        )
    return _facts(index, items, found, kept)


def _write(
    documents: Artifact, index: NgramIndex, items: list[str], found: Findings, out: Draft
) -> int:
    """Write both tables and return the number of documents kept."""
    columns = out.contract.arrow_schema("documents").names
    batches = documents.batches("train", columns, batch_size=1024)
    done = 0
    kept = 0
    for shard, part in groupby(_sharded(batches), key=itemgetter(0)):
        with (
            out.writer("documents", shard) as documents_writer,
            out.writer("rejects", shard) as rejects_writer,
        ):
            for _, batch in part:
                numbers = range(done, done + batch.num_rows)
                hits_of_rows = list(map(found.hits.get, numbers))
                is_kept = pa.array([hits is None for hits in hits_of_rows])
                documents_writer.write(batch.filter(is_kept))
                rejects_writer.write(_rejects(batch, hits_of_rows, index, items))
                done += batch.num_rows
        kept += documents_writer.rows
    return kept


def _rejects(
    batch: pa.RecordBatch,
    hits_of_rows: Sequence[list[int] | None],
    index: NgramIndex,
    items: list[str],
) -> list[dict[str, Any]]:
    """Return rows of a batch that hold an n-gram, with the columns that say why they are rejected.

    Args:
        batch: Documents.
        hits_of_rows: The n-grams that each of them contains; None if it contains none.
        index: The n-grams of the items.
        items: The ids of the items.
    """
    rejects = []
    for number, hits in enumerate(hits_of_rows):
        if hits is not None:
            (row,) = batch.slice(number, 1).to_pylist()
            rejects.append(row | _reason(index, items, hits))
    return rejects


def _sharded(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield each batch with the number of its shard."""
    size = 0
    shard = 0
    for batch in batches:
        yield shard, batch
        size += batch.nbytes
        if size >= SHARD_BYTES:
            size = 0
            shard += 1


def _reason(index: NgramIndex, items: list[str], hits: list[int]) -> dict[str, str | int]:
    """Return the columns that say why a document is rejected."""
    first = hits[0]
    return {
        "reason": REASON,
        "item": items[index.owners[first][0]],
        "ngram": " ".join(index.grams[first]),
        "hits": len(hits),
    }


def _facts(index: NgramIndex, items: list[str], found: Findings, kept: int) -> Facts:
    documents_by_item: Counter[int] = Counter()
    for hits in found.hits.values():
        documents_by_item.update(_owners(index, hits))
    indexed = _owners(index, range(len(index.owners)))
    rejected = len(found.hits)
    return Facts(
        figures={
            "kept": kept,
            "rejected": rejected,
            "items": len(items),
            "items_found": len(documents_by_item),
            "items_too_short": len(items) - len(indexed),
            "most_documents_of_an_item": max(documents_by_item.values(), default=0),
            "boilerplate_ngrams": len(found.boilerplate),
            "documents_spared": found.spared,
        },
        rejected={REASON: rejected} if rejected else {},
        samples=_samples(items, documents_by_item),
        notes=_notes(index, found),
    )


def _notes(index: NgramIndex, found: Findings) -> list[str]:
    """Return a sentence about the n-grams that were left out, if there are any."""
    if not found.boilerplate:
        return []
    return [
        f"{len(found.boilerplate)} of {len(index.grams)} n-grams occur in too many documents "
        "to mean anything and were left out, none of them of a benchmark; "
        f"{found.spared} documents hold nothing else of an item and were kept."
    ]


def _owners(index: NgramIndex, ngrams: Iterable[int]) -> set[int]:
    """Return the items that contain one of these n-grams."""
    owners: set[int] = set()
    for ngram in ngrams:
        owners.update(index.owners[ngram])
    return owners


def _samples(items: list[str], documents_by_item: Counter[int]) -> list[dict[str, Any]]:
    """Return the items found in most documents; equal counts in the order of the items."""

    def rank(item: int) -> tuple[int, int]:
        return -documents_by_item[item], item

    samples = []
    for item in heapq.nsmallest(MAX_SAMPLES, documents_by_item, key=rank):
        sample = {"item": items[item], "documents": documents_by_item[item]}
        samples.append(sample)
    return samples
