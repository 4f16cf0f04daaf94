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

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stages.dedup.minhash import Hashes, Signed

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
    """Finds clusters and families. Apart from sorting, time is linear in documents times bands.

    Args:
        signed: The documents.
        threshold: Similarity from which two documents are linked.
        bands: Number of LSH bands.
        rows: MinHash values per band.
        verify: Whether links need the threshold; otherwise a common band is enough.
    """
    count = len(signed.ids)
    order = np.lexsort((*sort_keys(signed.ids), -signed.chars))
    leaders, group = _exact_groups(signed.digests[order])
    # Three standard errors of the estimated similarity.
    margin = 3 * float(np.sqrt(threshold * (1 - threshold) / signed.signatures.shape[1]))
    links = _Links(len(leaders))
    families = _Links(len(leaders))
    compared = Bands(bands, rows, threshold, threshold - margin, verify)
    _link_neighbours(signed.signatures[order[leaders]], compared, links, families)

    def in_input_order(of_leader: Indices) -> Indices:
        """Indices of leaders, by leader, as indices of documents, by document."""
        result = np.empty(count, np.int64)
        result[order] = order[leaders[of_leader[group]]]
        return result

    exact = np.empty(count, bool)
    exact[order] = leaders[group] != np.arange(count)
    similarity = np.empty(count)
    similarity[order] = links.similarity[group]
    representative = in_input_order(links.roots())
    is_kept = representative == np.arange(count)
    similarity[exact | is_kept] = 1.0
    return Clusters(representative, in_input_order(families.roots()), similarity, exact)


def similarity(signatures: Hashes, left: Indices, right: Indices) -> Floats:
    """Estimates the Jaccard similarity of pairs: the share of equal MinHash values.

    Args:
        signatures: Shape [documents, permutations].
        left: Index of the first document of each pair, shape [pairs].
        right: Index of the second document of each pair, shape [pairs].
    """
    result = np.empty(len(left))
    for start in range(0, len(left), _CHUNK):
        part = slice(start, start + _CHUNK)
        is_equal = signatures[left[part]] == signatures[right[part]]
        result[part] = is_equal.mean(axis=1)
    return result


class _Links:
    """A forest over documents.

    Links are collected until there are as many as documents, so memory stays linear and the
    components are computed only a few times.
    """

    def __init__(self, count: int):
        self.similarity = np.zeros(count)
        self._roots = np.arange(count)
        self._pending: list[tuple[Indices, Indices]] = []

    def add(self, left: Indices, right: Indices, similar: Floats) -> None:
        np.maximum.at(self.similarity, left, similar)
        np.maximum.at(self.similarity, right, similar)
        self._pending.append((left, right))
        pending = sum(len(left) for left, _ in self._pending)
        if pending > max(len(self._roots), _CHUNK):
            self._join()

    def roots(self) -> Indices:
        """For each document, the first document of its component."""
        self._join()
        return self._roots

    def _join(self) -> None:
        count = len(self._roots)
        left = self._roots[_joined([left for left, _ in self._pending])]
        right = self._roots[_joined([right for _, right in self._pending])]
        edges = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
        _, labels = connected_components(edges, directed=False)
        _, first, component = np.unique(labels[self._roots], return_index=True, return_inverse=True)
        self._roots = first[component]
        self._pending = []


def _joined(parts: Sequence[Indices]) -> Indices:
    return np.concatenate([np.zeros(0, np.int64), *parts])


def sort_keys(ids: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Ids as keys for np.lexsort: the less significant half first."""
    halves = ids.view(">u8").reshape(-1, 2).astype(np.uint64)
    return halves[:, 1], halves[:, 0]


def _exact_groups(digests: npt.NDArray[np.uint64]) -> tuple[Indices, Indices]:
    """Groups documents with equal digests.

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


def _starts_of_runs(values: npt.NDArray[np.uint64]) -> Mask:
    """Whether each value (or row of values) differs from the one before."""
    starts = np.ones(len(values), bool)
    differs = values[1:] != values[:-1]
    starts[1:] = differs if values.ndim == 1 else differs.any(axis=1)
    return starts


def _link_neighbours(signatures: Hashes, bands: Bands, links: _Links, families: _Links) -> None:
    """Links documents that share a band, without ever listing all pairs."""
    for band in range(bands.count):
        values = signatures[:, band * bands.rows : (band + 1) * bands.rows]
        _link_buckets(signatures, _band_keys(values), bands, links, families)


def _link_buckets(
    signatures: Hashes,
    keys: npt.NDArray[np.uint64],
    bands: Bands,
    links: _Links,
    families: _Links,
) -> None:
    """Links documents with equal keys.

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
        left = members[starts][np.cumsum(starts) - 1][others]
        if round_ == MAX_ROUNDS:
            families.add(left, right, np.zeros(len(left)))
            return
        similar = similarity(signatures, left, right)
        linked = np.ones(len(left), bool)
        if bands.verify:
            linked = similar >= bands.threshold
        in_family = linked | (similar >= bands.family_threshold)
        links.add(left[linked], right[linked], similar[linked])
        families.add(left[in_family], right[in_family], similar[in_family])
        members = right[~linked]
        buckets = buckets[others][~linked]


def _band_keys(values_NR: Hashes) -> npt.NDArray[np.uint64]:
    """One 64-bit key per document from the R values of a band."""
    keys = np.zeros(len(values_NR), np.uint64)
    for column in values_NR.T:
        keys = (keys ^ column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys
