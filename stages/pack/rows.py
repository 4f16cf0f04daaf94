"""From documents to rows: which documents, how often, and where a long one is cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts import Artifact
from stages.digests import seed_for
from stages.pack.encode import encoder
from stages.pack.shuffle import KEYED_ROWS

TASK_BYTES = 1 << 20  # text that a worker encodes at once


@dataclass(frozen=True)
class Recipe:
    """What a worker must know to make rows."""

    tokenizer: Path
    seed: int
    max_row_tokens: int
    epochs: Mapping[str, float] = field(default_factory=dict)


class Counts(NamedTuple):
    """Copies included; tokens with end-of-text, bytes of UTF-8 text."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0

    def plus(self, other: Counts) -> Counts:
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Encoded:
    """Rows (KEYED_ROWS) of some documents, and what they count by source."""

    rows: pa.RecordBatch
    counts: dict[str, Counts]


def tasks(artifact: Artifact, table: str) -> Iterator[pa.RecordBatch]:
    """Documents (id, source, text) in batches of about TASK_BYTES, at least one document each."""
    for batch in artifact.batches(table, ["id", "source", "text"], batch_size=256):
        sizes = pc.binary_length(batch.column("text")).to_numpy()
        start = 0
        while start < len(sizes):
            stop = start + max(int(np.searchsorted(np.cumsum(sizes[start:]), TASK_BYTES)), 1)
            yield batch.slice(start, stop - start)
            start = stop


def source_bytes(artifact: Artifact, table: str) -> dict[str, int]:
    """UTF-8 bytes of text by source."""
    total: dict[str, int] = {}
    for batch in artifact.batches(table, ["source", "text"]):
        sizes = pa.table(
            {"source": batch.column("source"), "size": pc.binary_length(batch.column("text"))}
        )
        for row in sizes.group_by("source").aggregate([("size", "sum")]).to_pylist():
            total[row["source"]] = total.get(row["source"], 0) + row["size_sum"]
    return total


def encode(recipe: Recipe, documents: pa.RecordBatch) -> Encoded:
    """Rows of a batch of documents. The last part of each ends in end-of-text; parts join to the whole without a seam."""
    rows = documents.to_pylist()
    copies = [_copies(recipe, row["id"], row["source"]) for row in rows]
    wanted = [(row, count) for row, count in zip(rows, copies, strict=True) if count]
    coder = encoder(recipe.tokenizer)
    keys: list[int] = []
    names: list[str] = []
    parts: list[int] = []
    tokens: list[np.ndarray] = []
    sizes: list[int] = []
    counts: dict[str, Counts] = {}
    for (row, count), ids in zip(
        wanted, coder.encode([row["text"] for row, _ in wanted]), strict=True
    ):
        whole = np.append(ids, np.int32(coder.end_of_text))
        pieces = [
            whole[start : start + recipe.max_row_tokens]
            for start in range(0, len(whole), recipe.max_row_tokens)
        ]
        byte_sizes = [int(coder.token_bytes[piece].sum()) for piece in pieces]
        for copy in range(count):
            keys += [seed_for(recipe.seed, "pack", row["id"], copy)] * len(pieces)
            names += [row["id"]] * len(pieces)
            parts += range(len(pieces))
            tokens += pieces
            sizes += byte_sizes
        more = Counts(count, count * len(whole), count * sum(byte_sizes))
        counts[row["source"]] = counts.get(row["source"], Counts()).plus(more)
    offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in tokens])]).astype(np.int32)
    lists = pa.ListArray.from_arrays(
        offsets, np.concatenate(tokens) if tokens else np.empty(0, np.int32)
    )
    columns = [
        pa.array(keys, pa.uint64()),
        pa.array(names, pa.string()),
        pa.array(parts, pa.int32()),
        lists,
        pa.array(sizes, pa.int64()),
    ]
    return Encoded(pa.RecordBatch.from_arrays(columns, schema=KEYED_ROWS), counts)


def _copies(recipe: Recipe, document: str, source: str) -> int:
    whole, rest = divmod(recipe.epochs.get(source, 1.0), 1.0)
    return int(whole) + (seed_for(recipe.seed, "epochs", document) < rest * 2.0**63)
