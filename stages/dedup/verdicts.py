"""What becomes of each document: the table it goes to, why, and the figures of all of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stages.dedup.clusters import Clusters, Mask, similarity, sort_keys
from stages.dedup.config import DedupConfig
from stages.dedup.minhash import Signed
from stages.dedup.paragraphs import RepeatedParagraphs
from stages.report import Facts

REASONS = ("exact", "near", "repeated")  # in the order of the facts


def paragraph_ranks(signed: Signed, clusters: Clusters, heldout: Mask) -> npt.NDArray[np.int64]:
    """Return the order in which documents claim equal paragraphs, shape [documents].

    Documents of train come first, by id, then those of heldout, by id. Near-duplicates get -1,
    because they are removed whole.

    Args:
        signed: The documents.
        clusters: Their clusters.
        heldout: Documents that are held out, a mask over documents.
    """
    count = len(heldout)
    order = np.lexsort((*sort_keys(signed.ids), heldout))
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    return np.where(clusters.is_representative, rank, -1)


def verdicts_of(
    signed: Signed,
    clusters: Clusters,
    heldout: Mask,
    repeated: RepeatedParagraphs,
) -> pa.Table:
    """Return one row per document: the table it goes to, and its columns there.

    Args:
        signed: The documents.
        clusters: Their clusters.
        heldout: Documents that are held out, a mask over documents.
        repeated: The paragraphs that are removed.
    """
    is_kept = clusters.is_representative & ~repeated.is_empty
    is_heldout = heldout & is_kept
    tables = np.select([is_heldout, is_kept], ["heldout", "train"], "rejects")
    reasons = np.select(
        [repeated.is_empty, clusters.exact],
        ["repeated", "exact"],
        "near",
    )
    ids = np.array([raw.tobytes().hex() for raw in signed.ids])
    sizes = clusters.sizes.astype(np.int32)
    return pa.table(
        {
            "table": pa.array(tables),
            "cluster": pa.array(ids[clusters.representative]),
            "cluster_size": pa.array(sizes[clusters.representative]),
            "reason": pa.array(reasons),
            "similarity": pa.array(clusters.similarity),
        }
    )


def facts(
    config: DedupConfig,
    signed: Signed,
    clusters: Clusters,
    repeated: RepeatedParagraphs,
    verdicts: pa.Table,
) -> Facts:
    """Count what became of the documents.

    Args:
        config: The settings of the stage.
        signed: The documents.
        clusters: Their clusters.
        repeated: The paragraphs that are removed.
        verdicts: The table that `verdicts_of` returns.
    """
    total = len(verdicts)
    tables = Counter(verdicts.column("table").to_pylist())
    kept = tables["train"] + tables["heldout"]
    sizes = clusters.sizes
    bands, rows = config.bands_and_rows()
    figures: dict[str, float | int | str | bool | None] = {
        "documents": total,
        "kept": kept,
        "train": tables["train"],
        "heldout": tables["heldout"],
        "kept_share": round(kept / total, 4),
        "text_bytes": signed.text_bytes,
        "paragraphs_cut": int(repeated.is_removed.sum()),
        "clusters_of_several": int((sizes > 1).sum()),
        "largest_cluster": int(sizes.max()),
        "chained": _chained(config, signed, clusters),
        "bands": bands,
        "rows_per_band": rows,
    }
    return Facts(figures=figures, rejected=_rejected(verdicts))


def _chained(config: DedupConfig, signed: Signed, clusters: Clusters) -> int:
    """Count near-duplicates that are less similar to their representative than the threshold."""
    is_near = ~clusters.is_representative & ~clusters.exact
    near = np.flatnonzero(is_near)
    representatives = clusters.representative[near]
    similarities = similarity(signed.signatures, near, representatives)
    return int((similarities < config.threshold).sum())


def _rejected(verdicts: pa.Table) -> dict[str, int]:
    """Return the rejects by reason, in the order of `REASONS`."""
    is_reject = pc.equal(verdicts.column("table"), "rejects")
    reasons = verdicts.column("reason").filter(is_reject)
    counts = Counter(reasons.to_pylist())
    return {reason: counts[reason] for reason in REASONS if counts[reason]}
