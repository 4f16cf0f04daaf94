"""Finds sentences of the drawn pages that also occur in a training document.

A question about such a sentence would only measure memory. Also, decontaminate would remove every
training document that holds the sentence: for a docstring that half a library inherits, half the
library.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import pyarrow as pa

from data_contracts import Artifact
from stages.collect_evals.nearest import HeldoutPage
from stages.collect_evals.passages import folded_words, segments
from stages.execution.processes import local
from stages.execution.shards import map_shards
from stages.report import Report
from stages.text.ngrams import text_hash

MIN_WORDS = 5  # shorter segments (names, headings) are in every page and give nothing away
BATCH = 256


def key(text: str) -> int:
    """Return a 64-bit hash of the words of a segment, without regard to case and punctuation."""
    return text_hash(" ".join(folded_words(text)))


def in_training(
    pages: Iterable[HeldoutPage], documents: Artifact, workers: int, report: Report
) -> set[int]:
    """Return the keys of the pages' segments that occur in the training split.

    Reads the whole split once. The time is linear in its bytes.

    Args:
        pages: The drawn pages.
        documents: The artifact with a table `train`.
        workers: Processes that read the split; 0: one per core.
        report: Receives the progress.
    """
    wanted = set()
    for page in pages:
        for segment in page.segments:
            if len(folded_words(segment.text)) >= MIN_WORDS:
                wanted.add(key(segment.text))
    batches = documents.batches("train", ["text"], batch_size=BATCH)
    total = documents.rows("train")
    find = partial(_find, frozenset(wanted))
    seen: set[int] = set()
    done = 0
    for rows, found in map_shards(find, batches, local(workers)):
        seen |= found
        done += rows
        report.progress(done, total, "documents")
    return seen


def _find(wanted: frozenset[int], batch: pa.RecordBatch) -> tuple[int, set[int]]:
    """Return the number of documents in a batch, and which of the wanted keys they hold."""
    keys: set[int] = set()
    for text in batch.column("text"):
        keys.update(key(segment.text) for segment in segments(text.as_py()))
    return batch.num_rows, keys & wanted
