"""Finds duplicates: exact groups, LSH candidates, verified links, connected components.

All work is done on documents sorted by preference (longest text first, then smallest id). The first
document of a group, a bucket or a cluster is therefore its representative, and nothing depends on
the order in which the documents arrive.

Chains: if a ~ b and b ~ c, all three are one cluster, though the similarity of a and c may be below
the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stages.dedup.minhash import Hashes32, Signed
from stages.text.ngrams import Hashes

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Documents of a bucket that the others are compared with. A bucket of n documents takes at most
# 32 n comparisons.
MAX_ROUNDS = 32
_CHUNK = 1 << 16  # pairs compared at a time


@dataclass(frozen=True)
class Clusters:
    """Arrays over the documents, in the order of `Signed`.

    Attributes:
        representative: Index of the document that represents each document; its own index if it is
            kept.
        family: Index of the first document of a looser cluster. Two families are less similar than
            the threshold, with a margin.
        similarity: Estimated similarity to the neighbour that a document was linked to; 1 for exact
            duplicates and for documents that are kept.
        exact: Whether a document is equal to another one of its cluster that is preferred to it.
    """

    representative: Indices
    family: Indices
    similarity: Floats
    exact: Mask

    @cached_property
    def is_representative(self) -> Mask:
        """Whether each document represents itself."""
        return self.representative == np.arange(len(self.representative))

    @cached_property
    def sizes(self) -> Indices:
        """Return the documents of the cluster of each representative; 0 for the other documents."""
        return np.bincount(self.representative, minlength=len(self.representative))


@dataclass(frozen=True)
class Bands:
    """How signatures are compared: LSH finds candidates, their similarity links them.

    Attributes:
        count: Number of bands.
        rows: MinHash values per band.
        threshold: Similarity from which two documents are linked.
        family_threshold: Similarity from which two documents belong to one family.
        verify: Whether links need the threshold; otherwise a common band is enough.
    """

    count: int
    rows: int
    threshold: float
    family_threshold: float
    verify: bool


def find_clusters(
    signed: Signed, threshold: float, bands: int, rows: int, verify: bool = True
) -> Clusters:
    """Find clusters and families. Apart from sorting, time is linear in documents times bands.

    Args:
        signed: The documents.
        threshold: Similarity from which two documents are linked.
        bands: Number of LSH bands.
        rows: MinHash values per band.
        verify: Whether links need the threshold; otherwise a common band is enough.

    Returns:
        The clusters, in the order of `signed`.
    """
    count = len(signed.ids)
    order = np.lexsort((*sort_keys(signed.ids), -signed.chars))
    leaders, group = _exact_groups(signed.digests[order])
    links = _Links(len(leaders))
    families = _Links(len(leaders))
    permutations = signed.signatures.shape[1]
    family_threshold = threshold - _margin(threshold, permutations)
    compared = Bands(bands, rows, threshold, family_threshold, verify)
    of_leaders = signed.signatures[order[leaders]]
    _link_neighbours(of_leaders, compared, links, families)

    def in_input_order(of_leader: Indices) -> Indices:
        """Return the indices of leaders, by leader, as indices of documents, by document."""
        by_group = leaders[of_leader[group]]
        result = np.empty(count, np.int64)
        result[order] = order[by_group]
        return result

    exact = np.empty(count, bool)
    exact[order] = leaders[group] != np.arange(count)
    similarity = np.empty(count)
    similarity[order] = links.similarity[group]
    representative = in_input_order(links.roots())
    is_kept = representative == np.arange(count)
    similarity[exact | is_kept] = 1.0
    family = in_input_order(families.roots())
    return Clusters(representative, family, similarity, exact)


def _margin(threshold: float, permutations: int) -> float:
    """Return three standard errors of a similarity that is estimated near the threshold."""
    variance = threshold * (1 - threshold) / permutations
    return 3 * float(np.sqrt(variance))


def similarity(signatures: Hashes32, left: Indices, right: Indices) -> Floats:
    """Estimate the Jaccard similarity of pairs: the share of equal MinHash values.

    Args:
        signatures: Shape [documents, permutations].
        left: Index of the first document of each pair, shape [pairs].
        right: Index of the second document of each pair, shape [pairs].

    Returns:
        From 0 to 1, shape [pairs].
    """
    result = np.empty(len(left))
    for start in range(0, len(left), _CHUNK):
        part = slice(start, start + _CHUNK)
        of_left = signatures[left[part]]
        of_right = signatures[right[part]]
        result[part] = (of_left == of_right).mean(axis=1)
    return result


class _Links:
    """A forest over documents.

    Links are collected until there are as many as documents, so memory stays linear and the
    components are computed only a few times.
    """

    def __init__(self, count: int):
        self.similarity = np.zeros(count)
        self._roots = np.arange(count)
        self._left: list[Indices] = []
        self._right: list[Indices] = []
        self._pending = 0  # links that are not in the roots yet

    def add(self, left: Indices, right: Indices, similar: Floats) -> None:
        """Link pairs of documents.

        Args:
            left: Index of the first document of each pair, shape [pairs].
            right: Index of the second document of each pair, shape [pairs].
            similar: Similarity of each pair, shape [pairs].
        """
        np.maximum.at(self.similarity, left, similar)
        np.maximum.at(self.similarity, right, similar)
        self._left.append(left)
        self._right.append(right)
        self._pending += len(left)
        if self._pending > max(len(self._roots), _CHUNK):
            self._join()

    def roots(self) -> Indices:
        """Return the first document of each document's component."""
        self._join()
        return self._roots

    def _join(self) -> None:
        count = len(self._roots)
        left = self._roots[_concatenated(self._left)]
        right = self._roots[_concatenated(self._right)]
        ones = np.ones(len(left), np.int8)
        edges = coo_array((ones, (left, right)), shape=(count, count))
        _, labels = connected_components(edges, directed=False)
        _, first, component = np.unique(
            labels[self._roots],
            return_index=True,
            return_inverse=True,
        )
        self._roots = first[component]
        self._left = []
        self._right = []
        self._pending = 0


def _concatenated(parts: Sequence[Indices]) -> Indices:
    return np.concatenate([np.zeros(0, np.int64), *parts])


def sort_keys(ids: npt.NDArray[np.void]) -> tuple[Hashes, Hashes]:
    """Return the ids as keys for np.lexsort: the less significant half first."""
    halves = ids.view(">u8").reshape(-1, 2).astype(np.uint64)
    return halves[:, 1], halves[:, 0]


def _exact_groups(digests: Hashes) -> tuple[Indices, Indices]:
    """Group documents with equal digests.

    Args:
        digests: Shape [documents, 2].

    Returns:
        Index of the first document of each group, in ascending order, and the group of each
        document.
    """
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equal digests keep their order
    starts = _starts_of_runs(digests[order])
    first = order[starts]
    by_position = np.argsort(first)
    rank = np.empty(len(first), np.int64)
    rank[by_position] = np.arange(len(first))
    group = np.empty(len(order), np.int64)
    group[order] = rank[np.cumsum(starts) - 1]
    return first[by_position], group


def _starts_of_runs(values: Hashes) -> Mask:
    """Return whether each value (or row of values) differs from the one before."""
    differs = values[1:] != values[:-1]
    if differs.ndim > 1:
        differs = differs.any(axis=1)
    starts = np.ones(len(values), bool)
    starts[1:] = differs
    return starts


def _link_neighbours(
    signatures: Hashes32,
    bands: Bands,
    links: _Links,
    families: _Links,
) -> None:
    """Link documents that share a band, without ever listing all pairs."""
    for band in range(bands.count):
        first = band * bands.rows
        values = signatures[:, first : first + bands.rows]
        _link_buckets(signatures, _band_keys(values), bands, links, families)


def _link_buckets(
    signatures: Hashes32,
    keys: Hashes,
    bands: Bands,
    links: _Links,
    families: _Links,
) -> None:
    """Link documents with equal keys.

    In each round, the first document of every bucket is compared with all others of the bucket, and
    those linked to it leave the bucket with it. What is left after MAX_ROUNDS joins the family of
    its bucket, so that no near-duplicate can be split between train and held-out.
    """
    members = np.argsort(keys, kind="stable")
    buckets = keys[members]
    for round_ in range(MAX_ROUNDS + 1):
        starts = _starts_of_runs(buckets)
        others = ~starts
        right = members[others]
        if not len(right):
            return
        first_of_bucket = members[starts]
        bucket_of_member = np.cumsum(starts) - 1
        left = first_of_bucket[bucket_of_member[others]]
        if round_ == MAX_ROUNDS:
            families.add(left, right, np.zeros(len(left)))
            return
        similar = similarity(signatures, left, right)
        linked = similar >= bands.threshold
        if not bands.verify:
            linked = np.ones(len(left), bool)
        links.add(left[linked], right[linked], similar[linked])
        related = linked | (similar >= bands.family_threshold)
        families.add(left[related], right[related], similar[related])
        members = right[~linked]
        buckets = buckets[others][~linked]


def _band_keys(values_NR: Hashes32) -> Hashes:
    """Return one 64-bit key per document, made of the R values of a band."""
    keys = np.zeros(len(values_NR), np.uint64)
    for column in values_NR.T:
        keys = (keys ^ column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys
