"""Which sentences of the examined pages also stand in a training document: such a sentence examines memory.

Without this, an item made of a doc string that half the library inherits would cost decontaminate half the library.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import pyarrow as pa
import xxhash

from data_contracts import Artifact
from stages.collect_evals.nearest import Page
from stages.collect_evals.passages import segments, words
from stages.execution.shards import map_shards
from stages.report import Report

FEWEST_WORDS = 5  # shorter segments (names, headings) are in every page and give nothing away
BATCH = 256


def key(text: str) -> int:
    """64 bits of the words of a segment, whatever their case and punctuation."""
    return xxhash.xxh3_64_intdigest(" ".join(words(text)).encode())


def in_training(
    pages: Iterable[Page], documents: Artifact, workers: int, report: Report
) -> set[int]:
    """Keys of the pages' segments that occur in the training split. Reads all of it once, linear in its bytes."""
    wanted = frozenset(
        key(s.text) for page in pages for s in page.segments if len(words(s.text)) >= FEWEST_WORDS
    )
    seen: set[int] = set()
    done = 0
    for rows, found in map_shards(
        partial(_find, wanted), documents.batches("train", ["text"], batch_size=BATCH), workers
    ):
        seen |= found
        done += rows
        report.progress(done, documents.rows("train"), "documents")
    return seen


def _find(wanted: frozenset[int], batch: pa.RecordBatch) -> tuple[int, set[int]]:
    return batch.num_rows, {
        found
        for text in batch.column("text")
        for s in segments(text.as_py())
        if (found := key(s.text)) in wanted
    }
