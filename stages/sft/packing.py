"""Conversations as rows of the model's context: as many in a row as fit, none seeing another.

Costs 10 bytes of memory per token of context and row. Shapes: R rows, T tokens.
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
    """One conversation, shifted: `read` are the tokens given, `wanted` the token that should follow each (IGNORED: not the assistant's).

    Both int32: 8 bytes of memory per token.
    """

    name: str
    read: np.ndarray
    wanted: np.ndarray


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Which items share a row of `capacity`: each, longest first, goes where it leaves the least room. Lengths are at most `capacity`.

    Best-fit decreasing (Johnson 1974); the rooms in use are the bits of one integer, so an item costs O(capacity / 64).
    """
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # room → rows that have it
    rooms = 0
    for item in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        length = lengths[item]
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                rooms &= ~(1 << room)
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(item)
        left = room - length
        with_room[left].append(row)
        rooms |= 1 << left
    return rows


class PackedChats:
    """Batches of packed rows: {"ids", "labels", "segments"}, each [rows, T]; segment 0 is padding.

    Every epoch visits all rows once, in an order of its own.
    """

    def __init__(
        self, examples: Sequence[Example], context: int, batch_rows: int, seed: int, pad: int
    ):
        packed = best_fit([len(example.read) for example in examples], context)
        self.rows_per_epoch, self._batch_rows, self._seed = len(packed), batch_rows, seed
        shape = (len(packed), context)
        self._ids, self._labels = np.full(shape, pad, np.int32), np.full(shape, IGNORED, np.int32)
        self._segments = np.zeros(shape, np.int16)
        self._names = [[examples[item].name for item in row] for row in packed]
        for row, items in enumerate(packed):
            at = 0
            for segment, item in enumerate(items, 1):
                end = at + len(examples[item].read)
                self._ids[row, at:end], self._labels[row, at:end] = (
                    examples[item].read,
                    examples[item].wanted,
                )
                self._segments[row, at:end] = segment
                at = end

    @property
    def answer_tokens(self) -> int:
        """Tokens that the loss counts in one epoch."""
        return int((self._labels != IGNORED).sum())

    @property
    def filled(self) -> float:
        """Share of the rows' tokens that is not padding."""
        return float((self._segments > 0).mean()) if self._segments.size else 0.0

    @property
    def tokens_per_row(self) -> float:
        """Tokens that a row holds on average, padding not counted."""
        return self._ids.shape[1] * self.filled

    def at(self, rows: np.ndarray | slice) -> Batch:
        """These rows of the table."""
        arrays: dict[str, np.ndarray] = {
            "ids": self._ids[rows],
            "labels": self._labels[rows],
            "segments": self._segments[rows],
        }
        return {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}

    def rows(self, step: int, first: int, count: int) -> Batch:
        return self.at(self._places(step, first, count))

    def documents(self, step: int) -> list[str]:
        return sorted(
            {name for row in self._places(step, 0, self._batch_rows) for name in self._names[row]}
        )

    def _places(self, step: int, first: int, count: int) -> np.ndarray:
        return visits(step * self._batch_rows + first, count, self.rows_per_epoch, self._seed)[1]
