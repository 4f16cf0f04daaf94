"""From documents to rows: which documents, how often, and where a long one is cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts import Artifact, ArtifactKey
from stages.digests import seed_for
from stages.pack.encode import Encoder, encoder_of
from stages.pack.shuffle import KEYED_ROWS
from stages.text.heldout import is_drawn

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
    """What a source contributes.

    Attributes:
        documents: Documents, every copy counted.
        tokens: Tokens, end-of-text included.
        bytes: UTF-8 bytes of text.
    """

    documents: int = 0
    tokens: int = 0
    bytes: int = 0

    def plus(self, other: Counts) -> Counts:
        """Return the sum."""
        return Counts(
            self.documents + other.documents,
            self.tokens + other.tokens,
            self.bytes + other.bytes,
        )


@dataclass(frozen=True)
class EncodedRows:
    """Rows of some documents.

    Attributes:
        rows: The rows (KEYED_ROWS).
        counts: What the documents add to the counts of each source.
    """

    rows: pa.RecordBatch
    counts: dict[str, Counts]


def tasks(artifact: Artifact, table: str) -> Iterator[pa.RecordBatch]:
    """Yield documents in batches of about TASK_BYTES, at least one each.

    Args:
        artifact: The artifact with the documents.
        table: Its table.

    Yields:
        Documents with the columns id, source and text.
    """
    columns = ["id", "source", "text"]
    for batch in artifact.batches(table, columns, batch_size=256):
        sizes = pc.binary_length(batch.column("text")).to_numpy()
        start = 0
        while start < len(sizes):
            ends = np.cumsum(sizes[start:])
            fitting = int(np.searchsorted(ends, TASK_BYTES))
            count = max(fitting, 1)
            yield batch.slice(start, count)
            start += count


def source_bytes(artifact: Artifact, table: str) -> dict[str, int]:
    """Count the UTF-8 bytes of text by source.

    Args:
        artifact: The artifact with the documents.
        table: Its table.
    """
    total: Counter[str] = Counter()
    for batch in artifact.batches(table, ["source", "text"]):
        sizes = pc.binary_length(batch.column("text"))
        columns = {"source": batch.column("source"), "size": sizes}
        by_source = pa.table(columns).group_by("source")
        for row in by_source.aggregate([("size", "sum")]).to_pylist():
            total[row["source"]] += row["size_sum"]
    return dict(total)


def encode_shard(
    tokenizer: ArtifactKey, settings: RowSettings, documents: pa.RecordBatch
) -> EncodedRows:
    """Do what `encode` does, in a worker, which loads the tokenizer once."""
    return encode(encoder_of(tokenizer), settings, documents)


def encode(coder: Encoder, settings: RowSettings, documents: pa.RecordBatch) -> EncodedRows:
    """Make the rows of a batch of documents.

    The last part of each document ends in end-of-text. The parts, joined, are the ids of the whole
    document.

    Args:
        coder: The encoder of the tokenizer.
        settings: What rows are like.
        documents: Documents with the columns id, source and text.
    """
    columns = _Columns()
    counts: dict[str, Counts] = {}
    wanted = _wanted(settings, documents)
    encoded = coder.encode([document.text for document in wanted])
    for document, ids in zip(wanted, encoded, strict=True):
        parts = _parts(ids, coder, settings.max_row_tokens)
        for copy in range(document.copies):
            key = seed_for(settings.seed, "pack", document.id, copy)
            columns.add(key, document.id, parts)
        before = counts.get(document.source, Counts())
        counts[document.source] = before.plus(_counts(document.copies, parts))
    return EncodedRows(columns.batch(), counts)


class _DocumentToEncode(NamedTuple):
    """A document to encode.

    Attributes:
        id: Its id.
        source: Its source.
        text: Its text.
        copies: How often it occurs.
    """

    id: str
    source: str
    text: str
    copies: int


def _wanted(settings: RowSettings, documents: pa.RecordBatch) -> list[_DocumentToEncode]:
    """Return the documents that occur at least once."""
    wanted = []
    for row in documents.to_pylist():
        copies = _copies(settings, row["id"], row["source"])
        if copies:
            document = _DocumentToEncode(row["id"], row["source"], row["text"], copies)
            wanted.append(document)
    return wanted


def _copies(settings: RowSettings, document: str, source: str) -> int:
    """Return how often a document occurs.

    Of half an epoch, every other document occurs, by hash.
    """
    whole, rest = divmod(settings.epochs.get(source, 1.0), 1.0)
    return int(whole) + is_drawn(rest, settings.seed, "epochs", document)


class _Part(NamedTuple):
    """A part of a document.

    Attributes:
        tokens: Its ids.
        bytes: UTF-8 bytes that they represent.
    """

    tokens: np.ndarray
    bytes: int


def _parts(ids: np.ndarray, coder: Encoder, max_tokens: int) -> list[_Part]:
    whole = np.append(ids, np.int32(coder.end_of_text))
    parts = []
    for start in range(0, len(whole), max_tokens):
        tokens = whole[start : start + max_tokens]
        text_bytes = coder.token_bytes[tokens].sum()
        parts.append(_Part(tokens, int(text_bytes)))
    return parts


def _counts(copies: int, parts: list[_Part]) -> Counts:
    """Return what all copies of a document add to the counts of its source."""
    tokens = 0
    text_bytes = 0
    for part in parts:
        tokens += len(part.tokens)
        text_bytes += part.bytes
    return Counts(copies, copies * tokens, copies * text_bytes)


class _Columns:
    """The columns of KEYED_ROWS, collected document by document."""

    def __init__(self) -> None:
        self._keys: list[int] = []
        self._documents: list[str] = []
        self._parts: list[int] = []
        self._tokens: list[np.ndarray] = []
        self._bytes: list[int] = []

    def add(self, key: int, document: str, parts: list[_Part]) -> None:
        """Add one copy of a document.

        Args:
            key: The key of the copy.
            document: The id of the document.
            parts: The parts of the document, in order.
        """
        for number, part in enumerate(parts):
            self._keys.append(key)
            self._documents.append(document)
            self._parts.append(number)
            self._tokens.append(part.tokens)
            self._bytes.append(part.bytes)

    def batch(self) -> pa.RecordBatch:
        """Return the rows that were added."""
        lengths = list(map(len, self._tokens))
        ends = np.cumsum(lengths)
        offsets = np.concatenate([[0], ends]).astype(np.int32)
        values = np.concatenate([np.empty(0, np.int32), *self._tokens])
        columns = [
            pa.array(self._keys, pa.uint64()),
            pa.array(self._documents, pa.string()),
            pa.array(self._parts, pa.int32()),
            pa.ListArray.from_arrays(offsets, values),
            pa.array(self._bytes, pa.int64()),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=KEYED_ROWS)
