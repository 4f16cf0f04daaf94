"""The draw by hash that decides what is held out.

It depends only on the seed and on the key of the document. Adding documents, or changing the
workers or the order, does not change which of the others are held out.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import TypeVar

from stages.digests import seed_for

Row = TypeVar("Row")

_ALL = 2**63  # seeds have 63 bits


def hash_share(seed: int, *purpose: str | int) -> float:
    """Return a number from 0 to 1 that depends on its arguments alone."""
    return seed_for(seed, *purpose) / _ALL


def is_drawn(share: float, seed: int, *purpose: str | int) -> bool:
    """Return whether the hash of the arguments is among the first `share` of all hashes."""
    return seed_for(seed, *purpose) < share * _ALL


def split_of(seed: int, heldout_share: float, *key: str) -> str:
    """Return `train` or `heldout`, by the hash of a key.

    Args:
        seed: Seed of the hash.
        heldout_share: Share of all keys that are held out.
        key: What is held out or trained on as a whole, such as the id of a document.
    """
    return "heldout" if is_drawn(heldout_share, seed, "heldout", *key) else "train"


def first_by_hash(
    rows: Iterable[Row], count: int, seed: int, purpose: str, id_of: Callable[[Row], str]
) -> list[Row]:
    """Draw `count` rows: the first in the order of their hashes, in that order.

    Keeps `count` rows in memory, and reads `rows` once.

    Args:
        rows: Rows in any order.
        count: How many to draw, at most.
        seed: Seed of the hashes.
        purpose: Name of the draw. Two purposes draw independently.
        id_of: The id of a row, which is hashed.
    """

    def rank(row: Row) -> tuple[int, str]:
        row_id = id_of(row)
        return seed_for(seed, purpose, row_id), row_id

    return heapq.nsmallest(count, rows, key=rank)


def first_by_id(rows: Iterable[Row], count: int, id_of: Callable[[Row], str]) -> list[Row]:
    """Draw `count` rows whose ids are hashes already: the first in the order of their ids."""
    return heapq.nsmallest(count, rows, key=id_of)
