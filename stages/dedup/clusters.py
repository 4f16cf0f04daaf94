"""Which documents are duplicates of which: exact groups, LSH candidates, verified links, connected components.

All work is done on documents sorted by preference (longest text first, then smallest id). The first of a group, a bucket or a
cluster is therefore its representative, and nothing depends on the order in which documents came.

Rule for chains: if a ~ b and b ~ c, all three are one cluster, though a and c may be less similar than the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stages.dedup.minhash import Hashes, Signed

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MAX_ROUNDS = 32  # documents of a bucket that others are compared with; keeps a bucket of n at 32 n comparisons
_CHUNK = 1 << 16  # pairs compared at a time


@dataclass(frozen=True)
class Clusters:
    """Arrays over the documents in the order of `Signed`.

    representative: index of the document that stands for each (itself if it is kept).
    family: index of the first document of a looser cluster; two families are less similar than the threshold, with a margin.
    similarity: estimated similarity to the neighbour that linked it (1 for exact duplicates and for what is kept).
    exact: is it equal to another document of its cluster that is preferred to it?
    """

    representative: Indices
    family: Indices
    similarity: Floats
    exact: npt.NDArray[np.bool_]


def find_clusters(
    signed: Signed, threshold: float, bands: int, rows: int, verify: bool = True
) -> Clusters:
    """Clusters at `threshold`. Time is linear in documents times bands, but for sorting."""
    order = np.lexsort((*words_of(signed.ids), -signed.chars))
    leaders, group = _exact_groups(signed.digests[order])
    margin = 3 * float(np.sqrt(threshold * (1 - threshold) / signed.signatures.shape[1]))
    links = _Links(len(leaders))
    families = _Links(len(leaders))
    _link_neighbours(
        signed.signatures[order[leaders]],
        threshold,
        threshold - margin,
        bands,
        rows,
        verify,
        links,
        families,
    )

    def in_input_order(of_leader: Indices) -> Indices:
        result = np.empty(len(order), np.int64)
        result[order] = order[leaders[of_leader[group]]]
        return result

    exact = np.empty(len(order), bool)
    exact[order] = leaders[group] != np.arange(len(order))
    similarity = np.empty(len(order))
    similarity[order] = links.similarity[group]
    representative = in_input_order(links.roots())
    similarity[exact | (representative == np.arange(len(order)))] = 1.0
    return Clusters(representative, in_input_order(families.roots()), similarity, exact)


def similarity(signatures: Hashes, left: Indices, right: Indices) -> Floats:
    """Estimated Jaccard similarity of pairs: the share of equal MinHash values."""
    result = np.empty(len(left))
    for start in range(0, len(left), _CHUNK):
        part = slice(start, start + _CHUNK)
        result[part] = (signatures[left[part]] == signatures[right[part]]).mean(axis=1)
    return result


class _Links:
    """A forest over n documents. Links wait until there are as many as documents: memory stays linear, calls few."""

    def __init__(self, count: int):
        self.similarity = np.zeros(count)
        self._roots = np.arange(count)
        self._waiting: list[tuple[Indices, Indices]] = []

    def add(self, left: Indices, right: Indices, similar: Floats) -> None:
        np.maximum.at(self.similarity, left, similar)
        np.maximum.at(self.similarity, right, similar)
        self._waiting.append((left, right))
        if sum(len(one) for one, _ in self._waiting) > max(len(self._roots), _CHUNK):
            self._join()

    def roots(self) -> Indices:
        """For each document, the first document of its component."""
        self._join()
        return self._roots

    def _join(self) -> None:
        left = np.concatenate([one for one, _ in self._waiting] or [np.zeros(0, np.int64)])
        right = np.concatenate([other for _, other in self._waiting] or [np.zeros(0, np.int64)])
        count = len(self._roots)
        edges = coo_array(
            (np.ones(len(left), np.int8), (self._roots[left], self._roots[right])),
            shape=(count, count),
        )
        _, labels = connected_components(edges, directed=False)
        _, first, component = np.unique(labels[self._roots], return_index=True, return_inverse=True)
        self._roots, self._waiting = first[component], []


def words_of(ids: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Ids as two numbers, the less significant first, as np.lexsort wants its keys."""
    halves = ids.view(">u8").reshape(-1, 2).astype(np.uint64)
    return halves[:, 1], halves[:, 0]


def _exact_groups(digests: npt.NDArray[np.uint64]) -> tuple[Indices, Indices]:
    """Index of the first document of each group of equal digests, in order, and the group of each document."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equal digests keep their order
    sorted_N2 = digests[order]
    starts = np.concatenate([[True], (sorted_N2[1:] != sorted_N2[:-1]).any(axis=1)])
    first = order[starts]
    by_position = np.argsort(first)
    rank = np.empty(len(first), np.int64)
    rank[by_position] = np.arange(len(first))
    group = np.empty(len(order), np.int64)
    group[order] = rank[np.cumsum(starts) - 1]
    return first[by_position], group


def _link_neighbours(
    signatures: Hashes,
    threshold: float,
    loose: float,
    bands: int,
    rows: int,
    verify: bool,
    links: _Links,
    families: _Links,
) -> None:
    """Link each document to the first verified neighbour in its bucket, band by band; pairs are never listed.

    In each round the first document of every bucket meets all the others; those it is linked to leave the bucket with it.
    What is left after MAX_ROUNDS joins the family of its bucket, so that the held-out split stays on the safe side.
    """
    for band in range(bands):
        keys = _band_keys(signatures[:, band * rows : (band + 1) * rows])
        members = np.argsort(keys, kind="stable")
        buckets = keys[members]
        for round_ in range(MAX_ROUNDS + 1):
            starts = (
                np.concatenate([[True], buckets[1:] != buckets[:-1]])
                if len(buckets)
                else np.zeros(0, bool)
            )
            firsts = members[starts][np.cumsum(starts) - 1]
            others = ~starts
            left, right = firsts[others], members[others]
            if not len(left):
                break
            if round_ == MAX_ROUNDS:
                families.add(left, right, np.zeros(len(left)))
                break
            similar = similarity(signatures, left, right)
            linked = similar >= threshold if verify else np.ones(len(left), bool)
            near = linked | (similar >= loose)
            links.add(left[linked], right[linked], similar[linked])
            families.add(left[near], right[near], similar[near])
            members, buckets = right[~linked], buckets[others][~linked]


def _band_keys(values_NR: Hashes) -> npt.NDArray[np.uint64]:
    """One 64-bit key per document from the R values of a band."""
    keys = np.zeros(len(values_NR), np.uint64)
    for column in values_NR.T:
        keys = (keys ^ column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys
