"""dedup: clean_documents → unique_documents. One representative of each cluster, in train or held out; the others are rejects."""

from __future__ import annotations

from collections import Counter
from functools import cache, partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts import Artifact, Draft, InputError
from stages.dedup.clusters import Clusters, find_clusters, similarity, words_of
from stages.dedup.config import DedupConfig
from stages.dedup.minhash import Signed, Signer
from stages.dedup.paragraphs import Paragraphs, Repeated
from stages.dedup.split import choose_heldout, matching
from stages.dedup.writing import Range, ranges_for, scatter, scratch_path, settle
from stages.execution.shards import map_shards
from stages.report import Facts, Report

BATCH_ROWS = 512


def run(config: DedupConfig, *, clean_documents: Artifact, out: Draft, report: Report) -> Facts:
    """Raises InputError if there is nothing to compare."""
    total = clean_documents.rows("documents")
    if total == 0:
        raise InputError(
            f"{clean_documents}",
            "0 documents: " + _why_none(clean_documents),
            "loosen the rules of clean and run it again",
        )
    signed, paragraphs = _signed(config, clean_documents, report)
    bands, rows = config.bands_and_rows()
    clusters = find_clusters(signed, config.threshold, bands, rows, config.verify)
    always_train = matching(clean_documents, config.always_train)
    heldout = choose_heldout(
        clusters,
        signed.ids,
        config.heldout_share,
        config.heldout_max_documents,
        config.seed,
        always_train,
    )
    repeated = paragraphs.repeated(_claims(signed, clusters, heldout))
    verdicts = _verdicts(signed, clusters, heldout, repeated)

    count = ranges_for(signed.text_bytes)
    for number in range(count):
        scratch_path(out, number).unlink(missing_ok=True)  # of a run that was killed
    cut = partial(repeated.cut, min_chars=config.paragraph_chars)
    for done in scatter(clean_documents, verdicts, cut, count, out):
        report.progress(total + done, 2 * total, "documents")
    parts = [Range(number, scratch_path(out, number), out) for number in range(count)]
    for _ in map_shards(settle, parts, config.workers if count > 1 else 1):
        pass
    return _facts(config, signed, clusters, repeated, verdicts)


def _signed(config: DedupConfig, documents: Artifact, report: Report) -> tuple[Signed, Paragraphs]:
    """Signatures of all documents in the order of the artifact, 40 + 4 · permutations bytes each, and their paragraphs, 8 bytes each."""
    total = documents.rows("documents")
    signed = Signed(
        ids=np.empty(total, "V16"),
        digests=np.empty((total, 2), np.uint64),
        chars=np.empty(total, np.int64),
        signatures=np.empty((total, config.permutations), np.uint32),
        text_bytes=0,
    )
    at, text_bytes, paragraphs = 0, 0, list[Paragraphs]()
    batches = documents.batches("documents", ("id", "text"), batch_size=BATCH_ROWS)
    sign = partial(_sign, config.ngram, config.permutations, config.seed, config.paragraph_chars)
    for part, found in map_shards(sign, batches, config.workers):
        paragraphs.append(found)
        here = slice(at, at + len(part.chars))
        for name in ("ids", "digests", "chars", "signatures"):
            getattr(signed, name)[here] = getattr(part, name)
        at, text_bytes = here.stop, text_bytes + part.text_bytes
        report.progress(at, 2 * total, "documents")
    return Signed(
        signed.ids, signed.digests, signed.chars, signed.signatures, text_bytes
    ), Paragraphs.joined(paragraphs)


def _sign(
    ngram: int, permutations: int, seed: int, paragraph_chars: int, batch: pa.RecordBatch
) -> tuple[Signed, Paragraphs]:
    return _signer(ngram, permutations, seed).sign(batch), Paragraphs.of(
        batch.column("text"), paragraph_chars
    )


_signer = cache(Signer)


def _claims(
    signed: Signed, clusters: Clusters, heldout: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Which document comes first when paragraphs are equal: train by id, then heldout by id; -1: near-duplicates, they go as wholes."""
    rank = np.empty(len(heldout), np.int64)
    rank[np.lexsort((*words_of(signed.ids), heldout))] = np.arange(len(heldout))
    return np.where(clusters.representative == np.arange(len(heldout)), rank, -1)


def _verdicts(
    signed: Signed, clusters: Clusters, heldout: npt.NDArray[np.bool_], repeated: Repeated
) -> pa.Table:
    """One row per document: which table it goes to, and what is said of it there."""
    sizes = np.bincount(clusters.representative, minlength=len(clusters.representative))
    kept = (clusters.representative == np.arange(len(heldout))) & ~repeated.whole
    ids = np.array([raw.tobytes().hex() for raw in signed.ids])
    return pa.table(
        {
            "table": pa.array(np.select([heldout & kept, kept], ["heldout", "train"], "rejects")),
            "cluster": pa.array(ids[clusters.representative]),
            "cluster_size": pa.array(sizes[clusters.representative].astype(np.int32)),
            "reason": pa.array(
                np.select([repeated.whole, clusters.exact], ["repeated", "exact"], "near")
            ),
            "similarity": pa.array(clusters.similarity),
        }
    )


def _facts(
    config: DedupConfig, signed: Signed, clusters: Clusters, repeated: Repeated, verdicts: pa.Table
) -> Facts:
    into = Counter(verdicts.column("table").to_pylist())
    kept = into["train"] + into["heldout"]
    near = np.flatnonzero((clusters.representative != np.arange(len(verdicts))) & ~clusters.exact)
    sizes = np.bincount(clusters.representative)
    to_representative = similarity(signed.signatures, near, clusters.representative[near])
    bands, rows = config.bands_and_rows()
    because = Counter(
        verdicts.filter(pc.equal(verdicts.column("table"), "rejects")).column("reason").to_pylist()
    )
    return Facts(
        figures={
            "documents": len(verdicts),
            "kept": kept,
            "train": into["train"],
            "heldout": into["heldout"],
            "kept_share": round(kept / len(verdicts), 4),
            "text_bytes": signed.text_bytes,
            "paragraphs_cut": int(repeated.gone.sum()),
            "clusters_of_several": int((sizes > 1).sum()),
            "largest_cluster": int(sizes.max()),
            "chained": int((to_representative < config.threshold).sum()),
            "bands": bands,
            "rows_per_band": rows,
        },
        rejected={
            reason: because[reason] for reason in ("exact", "near", "repeated") if because[reason]
        },
    )


def _why_none(clean: Artifact) -> str:
    reasons: dict[str, int] = clean.manifest.facts.get("rejected", {})
    refused = clean.rows("rejects")
    told = ", ".join(
        f"{reason} {count} ({count / refused:.0%})" for reason, count in list(reasons.items())[:5]
    )
    return f"clean refused all {refused}: {told}" if refused else "clean was given none"
