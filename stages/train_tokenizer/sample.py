"""Which documents a tokenizer is learned from and measured on: drawn by hash, so that shard order does not matter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

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

    Keeps only ids and lengths: about 200 bytes of memory per document.
    """
    order: list[tuple[int, str, int, Group]] = []
    group_bytes: dict[Group, int] = defaultdict(int)
    for batch in documents.batches("documents", ["id", "source", "language", "text"]):
        sizes = pc.binary_length(batch.column("text")).to_pylist()
        ids, sources, languages = (batch.column(name).to_pylist() for name in ("id", "source", "language"))
        for document, source, language, size in zip(ids, sources, languages, sizes, strict=True):
            order.append((seed_for(seed, "tokenizer sample", document), document, size, (source, language)))
            group_bytes[source, language] += size
    order.sort()
    learn, measure, learn_bytes = set(), set(), 0
    measured: dict[Group, int] = defaultdict(int)
    for _, document, size, group in order:
        if learn_bytes >= sample_bytes:
            break
        learn.add(document)
        learn_bytes += size
        if measured[group] < measured_bytes / len(group_bytes):
            measure.add(document)
            measured[group] += size
    return Sample(learn, learn_bytes, measure, dict(group_bytes))


def texts(documents: Artifact, ids: set[str]) -> Iterator[str]:
    """Texts of the documents with these ids, one at a time."""
    for batch in documents.batches("documents", ["id", "text"], batch_size=256):
        for document, text in zip(batch.column("id").to_pylist(), batch.column("text"), strict=True):
            if document in ids:
                yield text.as_py()
