"""dedup: clean_documents → unique_documents.

One representative of each cluster goes to train or to heldout; the others become rejects.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pyarrow as pa

from data_contracts import Artifact, Draft, InputError
from stages.dedup.clusters import find_clusters
from stages.dedup.config import DedupConfig
from stages.dedup.minhash import Signed, Signer
from stages.dedup.paragraphs import Paragraphs
from stages.dedup.split import choose_heldout, matching
from stages.dedup.verdicts import facts, paragraph_ranks, verdicts_of
from stages.dedup.writing import BUCKET_BYTES, bucket_writer, scatter, write_bucket
from stages.execution.processes import local
from stages.execution.shards import map_shards
from stages.report import Facts, Report
from stages.text.bucket_sort import bucket_count

BATCH_ROWS = 512
MAX_REASONS_SHOWN = 5


def run(config: DedupConfig, *, clean_documents: Artifact, out: Draft, report: Report) -> Facts:
    """Find duplicates, split off held-out documents and write all of them, sorted by id.

    Args:
        config: The settings.
        clean_documents: The documents.
        out: The draft that is written to.
        report: Receives the progress.

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
    ranks = paragraph_ranks(signed, clusters, heldout)
    repeated = paragraphs.repeated(ranks)
    verdicts = verdicts_of(signed, clusters, heldout, repeated)

    cut = partial(repeated.cut, min_chars=config.paragraph_chars)
    count = bucket_count(signed.text_bytes, BUCKET_BYTES)
    with bucket_writer(out, count) as writer:
        for done in scatter(clean_documents, verdicts, cut, writer):
            report.progress(total + done, 2 * total, "documents")
    workers = config.workers if count > 1 else 1
    for _ in map_shards(partial(write_bucket, out), range(count), local(workers)):
        pass
    return facts(config, signed, clusters, repeated, verdicts)


def _sign_all(
    config: DedupConfig, documents: Artifact, report: Report
) -> tuple[Signed, Paragraphs]:
    """Return the signatures and paragraphs of all documents, in the order of the artifact.

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
        _sign_batch,
        config.ngram,
        config.permutations,
        config.seed,
        config.paragraph_chars,
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
    ngram: int,
    permutations: int,
    seed: int,
    paragraph_chars: int,
    batch: pa.RecordBatch,
) -> tuple[Signed, Paragraphs]:
    signer = _signer(ngram, permutations, seed)
    paragraphs = Paragraphs.of(batch.column("text"), paragraph_chars)
    return signer.sign(batch), paragraphs


_signer = cache(Signer)  # one per worker, with the words it has hashed


def _why_none(clean: Artifact) -> str:
    rejected = clean.rows("rejects")
    if not rejected:
        return "clean was given none"
    by_reason: dict[str, int] = clean.manifest.facts.get("rejected", {})
    shares = []
    for reason, count in list(by_reason.items())[:MAX_REASONS_SHOWN]:
        share = count / rejected
        shares.append(f"{reason} {count} ({share:.0%})")
    return f"clean rejected all {rejected}: {', '.join(shares)}"
