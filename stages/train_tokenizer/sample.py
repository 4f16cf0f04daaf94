"""Which documents a tokenizer is learned from and measured on: drawn by hash, so that shard order does not matter."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from data_contracts import Artifact
from stages.digests import seed_for

Group = tuple[str, str]  # source, language


@dataclass(frozen=True)
class Sample:
    """learn, measure: ids of documents; measure is a part of learn. group_bytes: UTF-8 bytes of the whole corpus by group."""

    learn: set[str]
    learn_bytes: int
    measure: set[str]
    group_bytes: dict[Group, int]


def draw(documents: Artifact, seed: int, sample_bytes: int, measured_bytes: int) -> Sample:
    """Documents in hash order until `sample_bytes` are reached; of these, an equal share of `measured_bytes` from each group.

    Memory: about 400 bytes per document of the sample, however large the corpus is.
    """
    largest: list[
        tuple[int, str, int, Group]
    ] = []  # a heap of the documents drawn so far; hashes are negative, the last one comes first
    learn_bytes = 0
    group_bytes: dict[Group, int] = defaultdict(int)
    for batch in documents.batches("documents", ["id", "source", "language", "text"]):
        sizes = pc.binary_length(batch.column("text")).to_pylist()
        ids, sources, languages = (
            batch.column(name).to_pylist() for name in ("id", "source", "language")
        )
        for document, source, language, size in zip(ids, sources, languages, sizes, strict=True):
            heapq.heappush(
                largest,
                (-seed_for(seed, "tokenizer sample", document), document, size, (source, language)),
            )
            learn_bytes += size
            while learn_bytes - largest[0][2] >= sample_bytes:
                learn_bytes -= heapq.heappop(largest)[2]
            group_bytes[source, language] += size
    measure = set()
    measured: dict[Group, int] = defaultdict(int)
    for _, document, size, group in sorted(largest, reverse=True):
        if measured[group] < measured_bytes / len(group_bytes):
            measure.add(document)
            measured[group] += size
    learn = {document for _, document, _, _ in largest}
    return Sample(learn, learn_bytes, measure, dict(group_bytes))


def rows(documents: Artifact, ids: set[str]) -> Iterator[dict[str, Any]]:
    """The documents with these ids, one at a time."""
    for batch in documents.batches(
        "documents", ["id", "source", "language", "text"], batch_size=256
    ):
        wanted = [n for n, document in enumerate(batch.column("id").to_pylist()) if document in ids]
        yield from batch.take(wanted).to_pylist()
