"""Draws the documents that a tokenizer is learned from and measured on.

They are drawn by hash, so the order of shards does not matter.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts import Artifact
from stages.digests import seed_for

Group = tuple[str, str]  # source, language

_COLUMNS = ("id", "source", "language", "text")


@dataclass(frozen=True)
class TokenizerSample:
    """The documents that were drawn.

    Attributes:
        learn: Ids of the documents to learn from.
        learn_bytes: UTF-8 bytes of their texts.
        measure: Ids of the documents to measure on, a subset of `learn`.
        group_bytes: UTF-8 bytes of the whole corpus by source and language.
    """

    learn: set[str]
    learn_bytes: int
    measure: set[str]
    group_bytes: dict[Group, int]


class _Drawn(NamedTuple):
    """A document in a heap. Hashes are negative, so the last in hash order is the first here."""

    negative_hash: int
    document: str
    size: int
    group: Group


def draw(documents: Artifact, seed: int, sample_bytes: int, measured_bytes: int) -> TokenizerSample:
    """Draw documents in hash order until `sample_bytes` are reached.

    The documents to measure on are the first of these, with an equal share of `measured_bytes` for
    each group. Memory: about 400 bytes per document of the sample, regardless of the corpus.

    Args:
        documents: The artifact training_documents.
        seed: Seed of the hashes.
        sample_bytes: UTF-8 bytes to learn from.
        measured_bytes: UTF-8 bytes to measure on.
    """
    drawn: list[_Drawn] = []
    learn_bytes = 0
    group_bytes: dict[Group, int] = defaultdict(int)
    for batch in documents.batches("documents", list(_COLUMNS)):
        for document, group, size in _sizes(batch):
            negative_hash = -seed_for(seed, "tokenizer sample", document)
            heapq.heappush(drawn, _Drawn(negative_hash, document, size, group))
            learn_bytes += size
            while learn_bytes - drawn[0].size >= sample_bytes:
                learn_bytes -= heapq.heappop(drawn).size
            group_bytes[group] += size
    measure = set()
    bytes_by_group: dict[Group, int] = defaultdict(int)
    for entry in sorted(drawn, reverse=True):
        if bytes_by_group[entry.group] < measured_bytes / len(group_bytes):
            measure.add(entry.document)
            bytes_by_group[entry.group] += entry.size
    learn = {entry.document for entry in drawn}
    return TokenizerSample(learn, learn_bytes, measure, dict(group_bytes))


def rows(documents: Artifact, ids: set[str]) -> Iterator[dict[str, Any]]:
    """Yield the documents with these ids, one at a time."""
    for batch in documents.batches("documents", list(_COLUMNS), batch_size=256):
        wanted = []
        for position, document in enumerate(batch.column("id").to_pylist()):
            if document in ids:
                wanted.append(position)
        yield from batch.take(wanted).to_pylist()


def _sizes(batch: pa.RecordBatch) -> Iterator[tuple[str, Group, int]]:
    """Yield id, group and UTF-8 bytes of each document."""
    sizes = pc.binary_length(batch.column("text")).to_pylist()
    ids = batch.column("id").to_pylist()
    sources = batch.column("source").to_pylist()
    languages = batch.column("language").to_pylist()
    for document, source, language, size in zip(ids, sources, languages, sizes, strict=True):
        yield document, (source, language), size
