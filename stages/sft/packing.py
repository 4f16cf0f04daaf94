"""Packs conversations into rows of the model's context, where none sees another.

Costs 10 bytes of memory per token of a row. Shapes: R rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stages.lm.loss import IGNORED
from stages.lm.training.batches import Batch, visits


@dataclass(frozen=True)
class Example:
    """One conversation. Costs 8 bytes of memory per token.

    Attributes:
        name: Id of the conversation.
        read: [tokens], int32: the tokens that the model reads.
        wanted: [tokens], int32: the token that follows each, or IGNORED if it is not the
            assistant's.
    """

    name: str
    read: np.ndarray
    wanted: np.ndarray


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Assign items to rows by best-fit decreasing (Johnson 1974).

    Items are assigned from the longest to the shortest, each to the row that it leaves with the
    least free space. The sizes of free space that occur are the bits of one integer, so an item
    costs O(capacity / 64).

    Args:
        lengths: Length of each item, at most `capacity`.
        capacity: Length of a row.

    Returns:
        The items of each row.
    """
    rows: list[list[int]] = []
    rows_by_space: list[list[int]] = [[] for _ in range(capacity + 1)]
    spaces = 0  # bit n: some row has n free
    for item in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        length = lengths[item]
        fitting = spaces >> length
        if fitting:
            lowest_bit = (fitting & -fitting).bit_length() - 1
            space = length + lowest_bit
            row = rows_by_space[space].pop()
            if not rows_by_space[space]:
                spaces &= ~(1 << space)
        else:
            space = capacity
            row = len(rows)
            rows.append([])
        rows[row].append(item)
        rows_by_space[space - length].append(row)
        spaces |= 1 << (space - length)
    return rows


class PackedChats:
    """Batches of packed rows: {"ids", "labels", "segments"}, each [R, T]. Segment 0 is padding.

    Every epoch visits all rows once, in random order.

    Args:
        examples: Conversations of at most `context` tokens.
        context: T.
        batch_size: R.
        seed: Determines the order.
        pad: Id of the padding token.
    """

    def __init__(
        self, examples: Sequence[Example], context: int, batch_size: int, seed: int, pad: int
    ):
        packed = best_fit([len(example.read) for example in examples], context)
        self.rows_per_epoch = len(packed)
        self._batch_size = batch_size
        self._seed = seed
        shape = (len(packed), context)
        self._ids = np.full(shape, pad, np.int32)
        self._labels = np.full(shape, IGNORED, np.int32)
        self._segments = np.zeros(shape, np.int16)
        self._names: list[list[str]] = []
        for row, items in enumerate(packed):
            self._fill(row, [examples[item] for item in items])

    def _fill(self, row: int, examples: list[Example]) -> None:
        start = 0
        for segment, example in enumerate(examples, 1):
            end = start + len(example.read)
            self._ids[row, start:end] = example.read
            self._labels[row, start:end] = example.wanted
            self._segments[row, start:end] = segment
            start = end
        self._names.append([example.name for example in examples])

    @property
    def answer_tokens(self) -> int:
        """Tokens that the loss counts in one epoch."""
        return int((self._labels != IGNORED).sum())

    @property
    def filled(self) -> float:
        """The fraction of tokens that are not padding."""
        return float((self._segments > 0).mean()) if self._segments.size else 0.0

    @property
    def tokens_per_row(self) -> float:
        """Mean number of tokens of a row, without padding."""
        return self._ids.shape[1] * self.filled

    def at(self, rows: np.ndarray | slice) -> Batch:
        """Return these rows of the table of packed rows.

        Args:
            rows: Numbers of rows, or a slice.
        """
        arrays: dict[str, np.ndarray] = {
            "ids": self._ids[rows],
            "labels": self._labels[rows],
            "segments": self._segments[rows],
        }
        return {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}

    def rows(self, step: int, first: int, count: int) -> Batch:
        return self.at(self._visited(step, first, count))

    def documents(self, step: int) -> list[str]:
        names: set[str] = set()
        for row in self._visited(step, 0, self._batch_size):
            names |= set(self._names[row])
        return sorted(names)

    def _visited(self, step: int, first: int, count: int) -> np.ndarray:
        first_visit = step * self._batch_size + first
        _, rows = visits(first_visit, count, self.rows_per_epoch, self._seed)
        return rows
