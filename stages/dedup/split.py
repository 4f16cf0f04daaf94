"""Chooses the representatives that are held out: whole families, by a hash of the family's id.

Families with pages that must be trained on are not held out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data_contracts import Artifact
from stages.config import any_found
from stages.dedup.clusters import Clusters, Mask
from stages.text.heldout import hash_share


def matching(documents: Artifact, patterns: Sequence[str]) -> Mask:
    """Find the documents whose URL matches one of `patterns`.

    Returns:
        A mask over documents.
    """
    mask = np.zeros(documents.rows("documents"), bool)
    if not patterns:
        return mask
    number = 0
    for batch in documents.batches("documents", ("url",), batch_size=8192):
        for url in batch.column("url").to_pylist():
            mask[number] = any_found(patterns, url)
            number += 1
    return mask


def choose_heldout(
    clusters: Clusters,
    ids: npt.NDArray[np.void],
    share: float,
    max_documents: int,
    seed: int,
    always_train: Mask,
) -> Mask:
    """Choose the representatives that are held out.

    A family is held out if its hash is below `share`, in the order of the hashes until
    `max_documents` is reached. A family larger than the whole held-out share stays in train. If
    this chooses no family, the one with the smallest hash is held out.

    Args:
        clusters: The clusters and families of N documents.
        ids: Ids of the documents, shape [N].
        share: Share of the families to hold out.
        max_documents: Maximum number of documents to hold out.
        seed: Seed of the hashes.
        always_train: Documents whose families are never held out, a mask over documents.

    Returns:
        A mask over documents.
    """
    count = len(ids)
    kept = np.flatnonzero(clusters.is_representative)
    families, family_of_kept, sizes = np.unique(
        clusters.family[kept], return_inverse=True, return_counts=True
    )
    heldout = np.zeros(count, bool)
    if share == 0 or len(families) < 2:
        return heldout
    draws = _draws(seed, ids[families])
    max_family = min(max(1, round(share * len(kept))), max_documents)
    eligible = (sizes <= max_family) & ~np.isin(families, clusters.family[always_train])
    by_draw = np.argsort(draws, kind="stable")
    chosen: list[int] = []
    total = 0
    for number in by_draw[eligible[by_draw]]:
        if draws[number] >= share and chosen:
            break
        if total + sizes[number] <= max_documents:
            chosen.append(number)
            total += sizes[number]
    heldout[kept[np.isin(family_of_kept, chosen)]] = True
    return heldout


def _draws(seed: int, family_ids: npt.NDArray[np.void]) -> npt.NDArray[np.float64]:
    """Return a number from 0 to 1 for each family, which depends on the seed and its id alone."""
    draws = np.empty(len(family_ids))
    for number, family_id in enumerate(family_ids):
        digits = family_id.tobytes().hex()
        draws[number] = hash_share(seed, "heldout", digits)
    return draws
