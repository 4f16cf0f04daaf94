"""Which representatives are held out: whole families, chosen by a hash of the family's id.

Families of pages that must be trained on are left out of the draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data_contracts import Artifact
from stages.config import any_found
from stages.dedup.clusters import Clusters
from stages.digests import seed_for


def matching(documents: Artifact, patterns: Sequence[str]) -> npt.NDArray[np.bool_]:
    """A mask over documents: those in whose address one of `patterns` is found."""
    total = documents.rows("documents")
    mask = np.zeros(total, bool)
    if not patterns:
        return mask
    at = 0
    for batch in documents.batches("documents", ("url",), batch_size=8192):
        for url in batch.column("url").to_pylist():
            mask[at] = any_found(patterns, url)
            at += 1
    return mask


def choose_heldout(
    clusters: Clusters,
    ids: npt.NDArray[np.void],
    share: float,
    max_documents: int,
    seed: int,
    always_train: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """A mask over documents: the representatives that are held out.

    A family is held out if its hash falls under `share`, in the order of the hashes until `max_documents` is reached. A family
    larger than the whole held-out share stays in train. If chance chooses none, the family with the least hash is taken.
    A family with a document of `always_train`, a mask over documents, is never held out.
    """
    count = len(ids)
    kept = np.flatnonzero(clusters.representative == np.arange(count))
    families, family_of_kept, sizes = np.unique(
        clusters.family[kept], return_inverse=True, return_counts=True
    )
    heldout = np.zeros(count, bool)
    if share == 0 or len(families) < 2:
        return heldout
    most = min(max(1, round(share * len(kept))), max_documents)
    draws = np.array(
        [seed_for(seed, "heldout", ids[family].tobytes().hex()) / 2**63 for family in families]
    )
    eligible = (sizes <= most) & ~np.isin(families, clusters.family[always_train])
    order = [number for number in np.argsort(draws, kind="stable") if eligible[number]]
    chosen: list[int] = []
    total = 0
    for number in order:
        if draws[number] >= share and chosen:
            break
        if total + sizes[number] <= max_documents:
            chosen.append(number)
            total += sizes[number]
    heldout[kept[np.isin(family_of_kept, chosen)]] = True
    return heldout
