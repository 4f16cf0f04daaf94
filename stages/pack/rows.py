"""From documents to rows: which documents, how often, and where a long one is cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts import Artifact, ArtifactKey
from stages.digests import seed_for
from stages.pack.encode import Encoder, encoder_of
from stages.pack.shuffle import KEYED_ROWS

TASK_BYTES = 1 << 20  # text that a worker encodes at once


@dataclass(frozen=True)
class RowSettings:
    """How rows are made of documents.

    Attributes:
        seed: Seed of the order of documents.
        max_row_tokens: Maximum number of tokens in a row.
        epochs: How often the documents of a source occur; 1 if a source is not in it.
    """

    seed: int
    max_row_tokens: int
    epochs: Mapping[str, float] = field(default_factory=dict)


class Counts(NamedTuple):
    """Documents (with copies), tokens (with end-of-text) and UTF-8 bytes of text."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0

    def plus(self, other: Counts) -> Counts:
        return Counts(
            self.documents + other.documents,
            self.tokens + other.tokens,
            self.bytes + other.bytes,
        )


@dataclass(frozen=True)
class EncodedRows:
    """Rows (KEYED_ROWS) of some documents, and their counts by source."""

    rows: pa.RecordBatch
    counts: dict[str, Counts]


def tasks(artifact: Artifact, table: str) -> Iterator[pa.RecordBatch]:
    """Yields documents (id, source, text) in batches of about TASK_BYTES, at least one each."""
    for batch in artifact.batches(table, ["id", "source", "text"], batch_size=256):
        sizes = pc.binary_length(batch.column("text")).to_numpy()
        start = 0
        while start < len(sizes):
            ends = np.cumsum(sizes[start:])
            count = max(int(np.searchsorted(ends, TASK_BYTES)), 1)
            yield batch.slice(start, count)
            start += count


def source_bytes(artifact: Artifact, table: str) -> dict[str, int]:
    """Returns the UTF-8 bytes of text by source."""
    total: dict[str, int] = {}
    for batch in artifact.batches(table, ["source", "text"]):
        sizes = pc.binary_length(batch.column("text"))
        by_source = pa.table({"source": batch.column("source"), "size": sizes}).group_by("source")
        for row in by_source.aggregate([("size", "sum")]).to_pylist():
            total[row["source"]] = total.get(row["source"], 0) + row["size_sum"]
    return total


def encode_shard(
    tokenizer: ArtifactKey, settings: RowSettings, documents: pa.RecordBatch
) -> EncodedRows:
    """As `encode`, in a worker, which loads the tokenizer once."""
    return encode(encoder_of(tokenizer), settings, documents)


def encode(coder: Encoder, settings: RowSettings, documents: pa.RecordBatch) -> EncodedRows:
    """Makes the rows of a batch of documents.

    The last part of each document ends in end-of-text. The parts, joined, are the ids of the whole
    document.
    """
    wanted: list[dict[str, Any]] = []
    copies: list[int] = []
    for document in documents.to_pylist():
        count = _copies(settings, document["id"], document["source"])
        if count:
            wanted.append(document)
            copies.append(count)
    encoded = coder.encode([document["text"] for document in wanted])
    columns = _Columns()
    counts: dict[str, Counts] = {}
    for document, count, ids in zip(wanted, copies, encoded, strict=True):
        parts = _parts(ids, coder, settings.max_row_tokens)
        for copy in range(count):
            key = seed_for(settings.seed, "pack", document["id"], copy)
            columns.add(key, document["id"], parts)
        tokens = sum(len(part.tokens) for part in parts)
        text_bytes = sum(part.bytes for part in parts)
        added = Counts(count, count * tokens, count * text_bytes)
        source = document["source"]
        counts[source] = counts.get(source, Counts()).plus(added)
    return EncodedRows(columns.batch(), counts)


class _Part(NamedTuple):
    """A part of a document: its ids, and the UTF-8 bytes that they represent."""

    tokens: np.ndarray
    bytes: int


def _parts(ids: np.ndarray, coder: Encoder, max_tokens: int) -> list[_Part]:
    whole = np.append(ids, np.int32(coder.end_of_text))
    parts = []
    for start in range(0, len(whole), max_tokens):
        tokens = whole[start : start + max_tokens]
        parts.append(_Part(tokens, int(coder.token_bytes[tokens].sum())))
    return parts


class _Columns:
    """The columns of KEYED_ROWS, collected document by document."""

    def __init__(self) -> None:
        self._keys: list[int] = []
        self._documents: list[str] = []
        self._parts: list[int] = []
        self._tokens: list[np.ndarray] = []
        self._bytes: list[int] = []

    def add(self, key: int, document: str, parts: list[_Part]) -> None:
        """Adds one copy of a document."""
        for number, part in enumerate(parts):
            self._keys.append(key)
            self._documents.append(document)
            self._parts.append(number)
            self._tokens.append(part.tokens)
            self._bytes.append(part.bytes)

    def batch(self) -> pa.RecordBatch:
        lengths = [len(tokens) for tokens in self._tokens]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        values = np.concatenate([np.empty(0, np.int32), *self._tokens])
        columns = [
            pa.array(self._keys, pa.uint64()),
            pa.array(self._documents, pa.string()),
            pa.array(self._parts, pa.int32()),
            pa.ListArray.from_arrays(offsets, values),
            pa.array(self._bytes, pa.int64()),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=KEYED_ROWS)


def _copies(settings: RowSettings, document: str, source: str) -> int:
    """How often a document occurs. Of half an epoch, every other document occurs, by hash."""
    whole, rest = divmod(settings.epochs.get(source, 1.0), 1.0)
    is_drawn = seed_for(settings.seed, "epochs", document) < rest * 2.0**63
    return int(whole) + is_drawn
