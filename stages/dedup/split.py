"""Which representatives are held out: whole families, chosen by a hash of the family's id."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stages.dedup.clusters import Clusters
from stages.digests import seed_for


def choose_heldout(clusters: Clusters, ids: npt.NDArray[np.void], share: float, max_documents: int, seed: int) -> npt.NDArray[np.bool_]:
    """A mask over documents: the representatives that are held out.

    A family is held out if its hash falls under `share`, in the order of the hashes until `max_documents` is reached. A family
    larger than the whole held-out share stays in train. If chance chooses none, the family with the least hash is taken.
    """
    count = len(ids)
    kept = np.flatnonzero(clusters.representative == np.arange(count))
    families, family_of_kept, sizes = np.unique(clusters.family[kept], return_inverse=True, return_counts=True)
    heldout = np.zeros(count, bool)
    if share == 0 or len(families) < 2:
        return heldout
    most = min(max(1, round(share * len(kept))), max_documents)
    draws = np.array([seed_for(seed, "heldout", ids[family].tobytes().hex()) / 2**63 for family in families])
    order = [number for number in np.argsort(draws, kind="stable") if sizes[number] <= most]
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
