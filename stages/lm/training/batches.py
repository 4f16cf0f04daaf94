"""The tokens that a training step sees are a pure function of (seed, step).

Resuming therefore needs only the number of the step.

The rows of a table of token shards, one after another, form one stream, closed to a ring. An epoch
starts at a random offset in the ring, cuts it into windows of T + 1 tokens that overlap by one, and
visits them in random order. So each token is predicted once an epoch, except for fewer than T
tokens that are left over, which differ between epochs. Where the windows of an epoch are used up,
the next epoch begins, in the middle of a batch if need be.
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

MAX_UINT16_VOCABULARY = 1 << 16
FEISTEL_ROUNDS = 6

Batch = Mapping[str, Tensor]  # tensors whose first dimension is rows


class Batches(Protocol):
    """The training data of `fit`.

    Rows are the same for every number of ranks and devices and every size of the micro-batch.
    """

    rows_per_epoch: int

    def rows(self, step: int, first: int, count: int) -> Batch:
        """Return the rows `first` to `first + count` of the batch of `step`."""

    def documents(self, step: int) -> list[str]:
        """Return the documents that the batch of `step` comes from, for messages."""


@dataclass(frozen=True)
class TokenStream:
    """A table of token shards as one flat array on disk, memory-mapped.

    Attributes:
        tokens: [tokens], uint16 or int32.
        ends: [rows], int64: where each row of the table ends in the stream.
        source: The artifact of the table.
        table: Name of the table.
    """

    tokens: np.ndarray
    ends: np.ndarray
    source: Artifact
    table: str

    @classmethod
    def open(cls, source: Artifact, table: str, cache: Path, vocab_size: int) -> TokenStream:
        """Open the stream of a table. The first call writes it to disk.

        Args:
            source: Token shards.
            table: Name of the table.
            cache: Folder for the stream, which takes 2 bytes a token, or 4 with a vocabulary of
                more than 65,536 tokens.
            vocab_size: Tokens in the vocabulary.

        Raises:
            InputError: The table holds no tokens.
        """
        dtype = np.dtype(np.uint16 if vocab_size <= MAX_UINT16_VOCABULARY else np.int32)
        tokens_path = cache / f"{table}.tokens"
        ends_path = cache / f"{table}.ends.npy"
        if not _is_complete(tokens_path, ends_path, dtype):
            cache.mkdir(parents=True, exist_ok=True)
            _write_stream(source, table, tokens_path, ends_path, dtype)
        if not tokens_path.stat().st_size:
            raise InputError(
                f"{source}.{table}",
                "holds no tokens",
                "give pack more documents, or a smaller share to the other split",
            )
        tokens = np.memmap(tokens_path, dtype, "r")
        return cls(tokens, np.load(ends_path, mmap_mode="r"), source, table)

    def __len__(self) -> int:
        return len(self.tokens)

    def row_at(self, positions: np.ndarray) -> np.ndarray:
        """Return the number of the row that contains each position of the stream.

        Args:
            positions: Positions in the stream, of any shape.

        Returns:
            Numbers of rows, of the same shape.
        """
        return np.searchsorted(self.ends, positions, side="right")

    def document_names(self, rows: set[int]) -> list[str]:
        """Return the values of column `document` in these rows, sorted.

        Reads the whole column, so it is for messages, not for every step.

        Args:
            rows: Numbers of rows of the table.
        """
        names: set[str] = set()
        start = 0
        for batch in self.source.batches(self.table, ["document"]):
            column = batch.column("document")
            end = start + batch.num_rows
            names |= {column[row - start].as_py() for row in rows if start <= row < end}
            start = end
        return sorted(names)


class Windows:
    """Batches of windows over a stream: {"ids": [R, T], "labels": [R, T]}.

    Args:
        stream: The tokens.
        context: T, tokens of a window.
        batch_size: R, windows of a batch.
        seed: Determines offsets and order.
        segments: Add "segments": [R, T], the row of the table that each token comes from.

    Raises:
        InputError: The stream is shorter than one window.
    """

    def __init__(
        self, stream: TokenStream, context: int, batch_size: int, seed: int, segments: bool = False
    ):
        if len(stream) <= context:
            raise InputError(
                f"{stream.source}.{stream.table}",
                f"has {len(stream)} tokens, one window of the model takes {context + 1}",
                "give more documents or set a smaller model.context",
            )
        self.stream = stream
        self.context = context
        self.batch_size = batch_size
        self.seed = seed
        self.segments = segments
        self.rows_per_epoch = len(stream) // context

    def positions(self, step: int, first: int, count: int) -> np.ndarray:
        """Return [count, T + 1] positions in the stream.

        Args:
            step: Number of the step.
            first: First row of the batch.
            count: Number of rows.
        """
        first_visit = step * self.batch_size + first
        epochs, windows = visits(first_visit, count, self.rows_per_epoch, self.seed)
        starts = windows * self.context
        for epoch in np.unique(epochs):
            offset = seed_for(self.seed, "offset", int(epoch)) % len(self.stream)
            starts[epochs == epoch] += offset
        return (starts[:, None] + np.arange(self.context + 1)) % len(self.stream)

    def rows(self, step: int, first: int, count: int) -> Batch:
        positions = self.positions(step, first, count)
        tokens = torch.from_numpy(self.stream.tokens[positions].astype(np.int64))
        batch = {"ids": tokens[:, :-1], "labels": tokens[:, 1:]}
        if self.segments:
            batch["segments"] = torch.from_numpy(self.stream.row_at(positions[:, :-1]))
        return batch

    def documents(self, step: int) -> list[str]:
        positions = self.positions(step, 0, self.batch_size)
        rows = np.unique(self.stream.row_at(positions.ravel()))
        return self.stream.document_names(set(rows.tolist()))


def visits(first: int, count: int, rows_per_epoch: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows a training visits: each once an epoch, in an order that differs by epoch.

    Args:
        first: Number of the first visit, counted from the start of the training.
        count: How many visits to return.
        rows_per_epoch: Number of rows.
        seed: Determines the orders.

    Returns:
        The epoch and the row of each visit, both [count].
    """
    epochs, rows = np.divmod(first + np.arange(count), rows_per_epoch)
    for epoch in np.unique(epochs):
        in_epoch = epochs == epoch
        order_seed = seed_for(seed, "order", int(epoch))
        rows[in_epoch] = permuted(rows[in_epoch], rows_per_epoch, order_seed)
    return epochs, rows


def permuted(index: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Return where a seeded permutation of range(size) sends each index.

    The permutation itself is never made, so memory is O(1) in `size`. It is a Feistel network on
    the next even number of bits, repeated until the value is below `size` ("cycle walking", Black
    and Rogaway 2002).

    Args:
        index: [n] indices, int64.
        size: Number of items.
        seed: Determines the permutation.

    Returns:
        [n], int64.
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    shift = np.uint64(half)
    mask = np.uint64((1 << half) - 1)
    keys = [np.uint64(seed_for(seed, "round", n)) for n in range(FEISTEL_ROUNDS)]
    value = index.astype(np.uint64)
    pending = np.ones(len(value), bool)
    while pending.any():
        left = value[pending] >> shift
        right = value[pending] & mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        value[pending] = left << shift | right
        pending = value >= size
    return value.astype(np.int64)


def _write_stream(
    source: Artifact, table: str, tokens_path: Path, ends_path: Path, dtype: np.dtype
) -> None:
    """Write tokens, then ends. Ends come last because they show that the tokens are complete."""
    lengths = [np.empty(0, np.int64)]
    with tokens_path.open("wb") as file:
        for batch in source.batches(table, ["tokens"]):
            column = batch.column("tokens")
            lengths.append(np.diff(column.offsets.to_numpy()))
            file.write(column.flatten().to_numpy().astype(dtype).tobytes())
    np.save(ends_path, np.cumsum(np.concatenate(lengths), dtype=np.int64))


def _is_complete(tokens_path: Path, ends_path: Path, dtype: np.dtype) -> bool:
    """Return whether the stream is complete. After a kill or a power cut it may not be."""
    try:
        ends = np.load(ends_path, mmap_mode="r")
        count = int(ends[-1]) if len(ends) else 0
        return tokens_path.stat().st_size == dtype.itemsize * count
    except (OSError, ValueError):
        return False


def _mix(x: np.ndarray) -> np.ndarray:
    """Return a 64-bit integer hash (the finalizer of SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
