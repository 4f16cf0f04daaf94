"""Which tokens a training step sees: a pure function of (seed, step), so that resuming needs only the step's number.

The rows of a table of token shards, one after another, are one stream, closed to a ring. An epoch starts at its own place on
the ring, cuts it into windows of T + 1 tokens that overlap by one, and visits them in its own order: each token is predicted
once an epoch, except the fewer than T that are left over, which differ from epoch to epoch. When the windows of an epoch are
used up, the next epoch begins, in the middle of a batch if need be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from data_contracts import Artifact, InputError
from stages.digests import seed_for

Batch = Mapping[str, Tensor]  # tensors whose first dimension is rows


class Batches(Protocol):
    """What `fit` needs of its data. Rows are the same for every number of ranks, devices and micro-batches."""

    rows_per_epoch: int

    def rows(self, step: int, first: int, count: int) -> Batch:
        """Rows `first` to `first + count` of the batch of `step`."""

    def documents(self, step: int) -> list[str]:
        """Where the batch of `step` comes from, for messages and lineage."""


@dataclass(frozen=True)
class TokenStream:
    """A table of token shards as one flat array on disk (memory-mapped), with the end of each of its rows.

    tokens: [n] uint16 or int32. ends: [rows] int64, end of each row in the stream. source: for the names of the documents.
    """

    tokens: np.ndarray
    ends: np.ndarray
    source: Artifact
    table: str

    @classmethod
    def open(cls, source: Artifact, table: str, cache: Path, vocab_size: int) -> TokenStream:
        """The stream of `table`, written to `cache` on first use: 2 bytes a token (4 above 65,536 tokens of vocabulary).

        Raises InputError if the table is empty.
        """
        kind = np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.int32)
        flat, ends = cache / f"{table}.tokens", cache / f"{table}.ends.npy"
        if not _is_whole(flat, ends, kind):
            cache.mkdir(parents=True, exist_ok=True)
            lengths = []
            with flat.open("wb") as file:
                for batch in source.batches(table, ["tokens"]):
                    column = batch.column("tokens")
                    lengths.append(np.diff(column.offsets.to_numpy()))
                    file.write(column.flatten().to_numpy().astype(kind).tobytes())
            np.save(
                ends, np.cumsum(np.concatenate([*lengths, np.empty(0, np.int64)]), dtype=np.int64)
            )
        if not flat.stat().st_size:
            raise InputError(
                f"{source}.{table}",
                "holds no tokens",
                "give pack more documents, or a smaller share to the other split",
            )
        return cls(np.memmap(flat, kind, "r"), np.load(ends, mmap_mode="r"), source, table)

    def __len__(self) -> int:
        return len(self.tokens)

    def row_at(self, positions: np.ndarray) -> np.ndarray:
        """Number of the row that each position of the stream lies in."""
        return np.searchsorted(self.ends, positions, side="right")

    def document_names(self, rows: set[int]) -> list[str]:
        """`document` of these rows, sorted. Reads the column once: for messages, not for every step."""
        names, start = set(), 0
        for batch in self.source.batches(self.table, ["document"]):
            inside = [row - start for row in rows if start <= row < start + batch.num_rows]
            names |= {batch.column("document")[row].as_py() for row in inside}
            start += batch.num_rows
        return sorted(names)


class Windows:
    """Batches of windows over a stream: {"ids": [R, T], "labels": [R, T]} and, with `segments`, the row of each token."""

    def __init__(
        self, stream: TokenStream, context: int, batch_rows: int, seed: int, segments: bool = False
    ):
        if len(stream) <= context:
            raise InputError(
                f"{stream.source}.{stream.table}", f"has {len(stream)} tokens, one window of the model takes {context + 1}",
                "give more documents or set a smaller model.context",
            )  # fmt: skip
        self.stream, self.context, self.batch_rows, self.seed, self.segments = (
            stream,
            context,
            batch_rows,
            seed,
            segments,
        )
        self.rows_per_epoch = len(stream) // context

    def positions(self, step: int, first: int, count: int) -> np.ndarray:
        """[count, T + 1] places in the stream."""
        epochs, windows = visits(
            step * self.batch_rows + first, count, self.rows_per_epoch, self.seed
        )
        starts = windows * self.context
        for epoch in np.unique(epochs):
            starts[epochs == epoch] += seed_for(self.seed, "offset", int(epoch)) % len(self.stream)
        return (starts[:, None] + np.arange(self.context + 1)) % len(self.stream)

    def rows(self, step: int, first: int, count: int) -> Batch:
        places = self.positions(step, first, count)
        tokens = torch.from_numpy(self.stream.tokens[places].astype(np.int64))
        batch = {"ids": tokens[:, :-1], "labels": tokens[:, 1:]}
        if self.segments:
            batch["segments"] = torch.from_numpy(self.stream.row_at(places[:, :-1]))
        return batch

    def documents(self, step: int) -> list[str]:
        rows = self.stream.row_at(self.positions(step, 0, self.batch_rows).ravel())
        return self.stream.document_names({int(row) for row in np.unique(rows)})


def visits(first: int, count: int, rows_per_epoch: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(epoch, row) of the `count` visits after the first `first` of a training: an epoch visits each row once, in an order of its own."""
    epochs, rows = np.divmod(first + np.arange(count), rows_per_epoch)
    for epoch in np.unique(epochs):
        mine = epochs == epoch
        rows[mine] = permuted(rows[mine], rows_per_epoch, seed_for(seed, "order", int(epoch)))
    return epochs, rows


def permuted(index: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Where a seeded permutation of range(size) sends `index`, without making the permutation: O(1) memory at any size.

    A Feistel network on the next even number of bits, walked until the value falls below `size` (Black and Rogaway 2002).
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    keys = [np.uint64(seed_for(seed, "round", n)) for n in range(6)]
    value = index.astype(np.uint64)
    pending = np.ones(len(value), bool)
    while pending.any():
        left, right = value[pending] >> np.uint64(half), value[pending] & mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        value[pending] = left << np.uint64(half) | right
        pending = value >= size
    return value.astype(np.int64)


def _is_whole(flat: Path, ends: Path, kind: np.dtype) -> bool:
    """Whether all tokens are there: the ends, written last, say how many. A kill or a power cut leaves less."""
    try:
        row_ends = np.load(ends, mmap_mode="r")
        return flat.stat().st_size == kind.itemsize * (int(row_ends[-1]) if len(row_ends) else 0)
    except (OSError, ValueError):
        return False


def _mix(x: np.ndarray) -> np.ndarray:
    """A 64-bit integer hash (the finalizer of SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
