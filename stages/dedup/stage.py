"""dedup: clean_documents → unique_documents.

One representative of each cluster goes to train or to heldout; the others become rejects.
"""

from __future__ import annotations

from collections import Counter
from functools import cache, partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts import Artifact, Draft, InputError
from stages.dedup.clusters import Clusters, find_clusters, similarity, sort_keys
from stages.dedup.config import DedupConfig
from stages.dedup.minhash import Signed, Signer
from stages.dedup.paragraphs import Paragraphs, RepeatedParagraphs
from stages.dedup.split import choose_heldout, matching
from stages.dedup.writing import IdRange, ranges_for, scatter, scratch_path, write_range
from stages.execution.processes import local
from stages.execution.shards import map_shards
from stages.report import Facts, Report

BATCH_ROWS = 512
MAX_REASONS_SHOWN = 5
REASONS = ("exact", "near", "repeated")  # in the order of the facts

Mask = npt.NDArray[np.bool_]


def run(config: DedupConfig, *, clean_documents: Artifact, out: Draft, report: Report) -> Facts:
    """Finds duplicates, splits off held-out documents and writes all of them, sorted by id.

    Raises:
        InputError: There are no documents.
    """
    total = clean_documents.rows("documents")
    if total == 0:
        raise InputError(
            f"{clean_documents}",
            f"0 documents: {_why_none(clean_documents)}",
            "loosen the rules of clean and run it again",
        )
    signed, paragraphs = _sign_all(config, clean_documents, report)
    bands, rows = config.bands_and_rows()
    clusters = find_clusters(signed, config.threshold, bands, rows, config.verify)
    heldout = choose_heldout(
        clusters,
        signed.ids,
        config.heldout_share,
        config.heldout_max_documents,
        config.seed,
        always_train=matching(clean_documents, config.always_train),
    )
    repeated = paragraphs.repeated(_paragraph_ranks(signed, clusters, heldout))
    verdicts = _verdicts(signed, clusters, heldout, repeated)

    count = ranges_for(signed.text_bytes)
    for number in range(count):
        scratch_path(out, number).unlink(missing_ok=True)  # left by a run that was killed
    cut = partial(repeated.cut, min_chars=config.paragraph_chars)
    for done in scatter(clean_documents, verdicts, cut, count, out):
        report.progress(total + done, 2 * total, "documents")
    ranges = [IdRange(number, out) for number in range(count)]
    for _ in map_shards(write_range, ranges, local(config.workers if count > 1 else 1)):
        pass
    return _facts(config, signed, clusters, repeated, verdicts)


def _sign_all(
    config: DedupConfig, documents: Artifact, report: Report
) -> tuple[Signed, Paragraphs]:
    """Signatures and paragraphs of all documents, in the order of the artifact.

    Memory: 40 + 4 · permutations bytes per document, and 8 bytes per paragraph.
    """
    total = documents.rows("documents")
    ids = np.empty(total, "V16")
    digests = np.empty((total, 2), np.uint64)
    chars = np.empty(total, np.int64)
    signatures = np.empty((total, config.permutations), np.uint32)
    text_bytes = 0
    paragraphs: list[Paragraphs] = []
    done = 0
    batches = documents.batches("documents", ("id", "text"), batch_size=BATCH_ROWS)
    sign = partial(
        _sign_batch, config.ngram, config.permutations, config.seed, config.paragraph_chars
    )
    for part, paragraphs_of_part in map_shards(sign, batches, local(config.workers)):
        here = slice(done, done + len(part.chars))
        ids[here] = part.ids
        digests[here] = part.digests
        chars[here] = part.chars
        signatures[here] = part.signatures
        text_bytes += part.text_bytes
        paragraphs.append(paragraphs_of_part)
        done = here.stop
        report.progress(done, 2 * total, "documents")
    signed = Signed(ids, digests, chars, signatures, text_bytes)
    return signed, Paragraphs.joined(paragraphs)


def _sign_batch(
    ngram: int, permutations: int, seed: int, paragraph_chars: int, batch: pa.RecordBatch
) -> tuple[Signed, Paragraphs]:
    signed = _signer(ngram, permutations, seed).sign(batch)
    return signed, Paragraphs.of(batch.column("text"), paragraph_chars)


_signer = cache(Signer)  # one per worker, with the words it has hashed


def _paragraph_ranks(signed: Signed, clusters: Clusters, heldout: Mask) -> npt.NDArray[np.int64]:
    """The order in which documents claim equal paragraphs: train by id, then heldout by id.

    Near-duplicates get -1, because they are removed whole.
    """
    count = len(heldout)
    order = np.lexsort((*sort_keys(signed.ids), heldout))
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    is_representative = clusters.representative == np.arange(count)
    return np.where(is_representative, rank, -1)


def _verdicts(
    signed: Signed, clusters: Clusters, heldout: Mask, repeated: RepeatedParagraphs
) -> pa.Table:
    """One row per document: the table it goes to, and its columns there."""
    count = len(heldout)
    sizes = np.bincount(clusters.representative, minlength=count)
    is_representative = clusters.representative == np.arange(count)
    is_kept = is_representative & ~repeated.is_empty
    tables = np.select([heldout & is_kept, is_kept], ["heldout", "train"], "rejects")
    reasons = np.select([repeated.is_empty, clusters.exact], ["repeated", "exact"], "near")
    ids = np.array([raw.tobytes().hex() for raw in signed.ids])
    return pa.table(
        {
            "table": pa.array(tables),
            "cluster": pa.array(ids[clusters.representative]),
            "cluster_size": pa.array(sizes[clusters.representative].astype(np.int32)),
            "reason": pa.array(reasons),
            "similarity": pa.array(clusters.similarity),
        }
    )


def _facts(
    config: DedupConfig,
    signed: Signed,
    clusters: Clusters,
    repeated: RepeatedParagraphs,
    verdicts: pa.Table,
) -> Facts:
    tables = Counter(verdicts.column("table").to_pylist())
    kept = tables["train"] + tables["heldout"]
    is_near = (clusters.representative != np.arange(len(verdicts))) & ~clusters.exact
    near = np.flatnonzero(is_near)
    to_representative = similarity(signed.signatures, near, clusters.representative[near])
    sizes = np.bincount(clusters.representative)
    bands, rows = config.bands_and_rows()
    rejects = verdicts.filter(pc.equal(verdicts.column("table"), "rejects"))
    rejected = Counter(rejects.column("reason").to_pylist())
    return Facts(
        figures={
            "documents": len(verdicts),
            "kept": kept,
            "train": tables["train"],
            "heldout": tables["heldout"],
            "kept_share": round(kept / len(verdicts), 4),
            "text_bytes": signed.text_bytes,
            "paragraphs_cut": int(repeated.is_removed.sum()),
            "clusters_of_several": int((sizes > 1).sum()),
            "largest_cluster": int(sizes.max()),
            "chained": int((to_representative < config.threshold).sum()),
            "bands": bands,
            "rows_per_band": rows,
        },
        rejected={reason: rejected[reason] for reason in REASONS if rejected[reason]},
    )


def _why_none(clean: Artifact) -> str:
    rejected = clean.rows("rejects")
    if not rejected:
        return "clean was given none"
    by_reason: dict[str, int] = clean.manifest.facts.get("rejected", {})
    shares = []
    for reason, count in list(by_reason.items())[:MAX_REASONS_SHOWN]:
        shares.append(f"{reason} {count} ({count / rejected:.0%})")
    return f"clean rejected all {rejected}: {', '.join(shares)}"
