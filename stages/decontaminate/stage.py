"""unique_documents.train + eval_items → training_documents: documents that hold an item go to the rejects, with the item they hit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

import numpy as np
import pyarrow as pa

from data_contracts import Artifact, Draft, InputError
from stages.decontaminate.config import DecontaminateConfig
from stages.decontaminate.ngrams import Index
from stages.decontaminate.scan import Findings, index_of, scan
from stages.report import Facts, Report

REASON = "contaminated"
SHOWN = 5  # items told in the samples
SHARD_BYTES = 512 << 20  # of documents, in memory: about what one file of each table is made of


def run(
    config: DecontaminateConfig,
    *,
    unique_documents: Artifact,
    eval_items: Artifact,
    out: Draft,
    report: Report,
) -> Facts:
    """Find shared n-grams, then write each document to where it belongs, in the order it came.

    Raises InputError if there is no document, or if none is left.
    """
    if not unique_documents.rows("train"):
        raise InputError(
            f"{unique_documents}.train",
            f"0 documents for training ({unique_documents.rows('heldout')} held out, {unique_documents.rows('rejects')} duplicates)",
            "lower dedup.heldout_share or give the crawl more pages",
        )
    index = index_of(eval_items.path, config.ngram, config.shortest)
    items = [
        item
        for batch in eval_items.batches("items", ["id"])
        for item in batch.column(0).to_pylist()
    ]
    found = scan(unique_documents, eval_items, config, report)
    kept = _write(unique_documents, index, items, found, out)
    if not kept:
        raise InputError(
            f"{unique_documents}.train",
            f"all {len(found.hits)} documents share {config.ngram} words in a row with an item, none is left to train on",
            "raise decontaminate.ngram, lower decontaminate.max_document_frequency, or examine on other pages or benchmarks",
        )
    return _facts(index, items, found, kept)


def _write(documents: Artifact, index: Index, items: list[str], found: Findings, out: Draft) -> int:
    """Documents kept."""
    columns = out.contract.arrow_schema("documents").names
    number = kept = 0
    batches = documents.batches("train", columns, batch_size=1024)
    for shard, part in groupby(_sharded(batches), key=itemgetter(0)):
        with (
            out.writer("documents", shard) as documents_writer,
            out.writer("rejects", shard) as rejects_writer,
        ):
            for _, batch in part:
                refused = np.array(
                    [n in found.hits for n in range(number, number + batch.num_rows)]
                )
                documents_writer.write(batch.filter(pa.array(~refused)))
                rejects_writer.write(
                    row | _reason(index, items, found.hits[number + int(at)])
                    for at, row in zip(
                        np.flatnonzero(refused),
                        batch.filter(pa.array(refused)).to_pylist(),
                        strict=True,
                    )
                )
                number += batch.num_rows
        kept += documents_writer.rows
    return kept


def _sharded(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Each batch with the number of its shard."""
    size, shard = 0, 0
    for batch in batches:
        yield shard, batch
        size += batch.nbytes
        if size >= SHARD_BYTES:
            size, shard = 0, shard + 1


def _reason(index: Index, items: list[str], hits: list[int]) -> dict[str, str | int]:
    first = hits[0]
    return {
        "reason": REASON,
        "item": items[index.owners[first][0]],
        "ngram": " ".join(index.grams[first]),
        "hits": len(hits),
    }


def _facts(index: Index, items: list[str], found: Findings, kept: int) -> Facts:
    leaks = Counter(
        item
        for hits in found.hits.values()
        for item in {owner for number in hits for owner in index.owners[number]}
    )
    tried = {owner for owners in index.owners for owner in owners}
    figures: dict[str, float | int | str | bool | None] = {
        "kept": kept,
        "rejected": len(found.hits),
        "items": len(items),
        "items_found": len(leaks),
        "items_too_short": len(items) - len(tried),
        "most_documents_of_an_item": max(leaks.values(), default=0),
        "boilerplate_ngrams": len(found.boilerplate),
        "documents_spared": found.spared,
    }
    notes = []
    if found.boilerplate:
        notes.append(
            f"{len(found.boilerplate)} of {len(index.grams)} n-grams occur in too many documents to mean anything and were left out, "
            f"none of them of a benchmark; {found.spared} documents hold nothing else of an item and were kept."
        )
    samples = [
        {"item": items[item], "documents": count}
        for item, count in sorted(leaks.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    return Facts(
        figures=figures,
        rejected={REASON: len(found.hits)} if found.hits else {},
        samples=samples[:SHOWN],
        notes=notes,
    )
