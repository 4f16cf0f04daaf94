"""training_documents, held-out documents, tokenizer → token_shards: encode, shuffle, write."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import partial, reduce

import pyarrow as pa

from data_contracts import Artifact, ConfigError, Draft, InputError
from data_contracts.store.artifact import sha256
from stages.execution.shards import map_shards
from stages.pack import rows, shuffle
from stages.pack.config import PackConfig
from stages.pack.encode import encoder
from stages.pack.rows import Counts
from stages.report import Facts, Report

ALONE_BYTES = 16_000_000  # less text than this is encoded sooner than worker processes start


def run(
    config: PackConfig,
    *,
    training_documents: Artifact,
    unique_documents: Artifact,
    tokenizer: Artifact,
    out: Draft,
    report: Report,
) -> Facts:
    """Encode both splits and write them as shuffled shards. Held-out documents occur once each, whatever `epochs` says.

    Raises InputError if a split is empty or the training split too small, ConfigError if `epochs` names an unknown source.
    """
    train_bytes = _source_bytes(
        training_documents,
        "documents",
        "give the crawl more pages, or loosen the stage that refused them",
    )
    heldout_bytes = _source_bytes(
        unique_documents, "heldout", "raise dedup.heldout_share or give the crawl more pages"
    )
    for source in sorted(set(config.epochs) - set(train_bytes)):
        near = difflib.get_close_matches(source, train_bytes, n=1)
        fix = f"did you mean {near[0]!r}?" if near else f"choose from: {', '.join(train_bytes)}"
        raise ConfigError(
            f"pack.epochs.{source}", "no training document comes from a source of that name", fix
        )

    file = tokenizer.file("tokenizer")
    make = partial(_split, out=out, report=report, config=config)
    train = make(
        training_documents,
        "documents",
        "train",
        train_bytes,
        rows.Recipe(file, config.seed, config.max_row_tokens, config.epochs),
    )
    heldout = make(
        unique_documents,
        "heldout",
        "heldout",
        heldout_bytes,
        rows.Recipe(file, config.seed, config.max_row_tokens),
    )
    out.path("tokenizer.sha256").write_text(
        f"{sha256(file)} {encoder(file).vocabulary_size}\n", "utf-8"
    )

    trained, kept = (reduce(Counts.plus, split.values(), Counts()) for split in (train, heldout))
    if trained.tokens < config.min_train_tokens:
        raise InputError(
            f"{training_documents}",
            f"{trained.documents} documents give {trained.tokens} tokens, fewer than pack.min_train_tokens = {config.min_train_tokens}",
            "give the crawl more pages, raise pack.epochs, or lower pack.min_train_tokens",
        )
    figures: dict[str, float | int | str | bool | None] = {
        "train_tokens": trained.tokens,
        "train_documents": trained.documents,
        "heldout_tokens": kept.tokens,
        "heldout_documents": kept.documents,
        "bytes_per_token": round(trained.bytes / trained.tokens, 4),
    }
    return Facts(
        figures=figures
        | {f"train_tokens of {source}": train[source].tokens for source in sorted(train)}
    )


def _split(
    artifact: Artifact,
    source: str,
    table: str,
    sizes: dict[str, int],
    recipe: rows.Recipe,
    out: Draft,
    report: Report,
    config: PackConfig,
) -> dict[str, Counts]:
    """Encode and shuffle table `source` of `artifact` into `table` of the draft; counts by source of the documents."""
    counts: dict[str, Counts] = {}
    expected = sum(int(size * recipe.epochs.get(name, 1.0)) for name, size in sizes.items())
    workers = config.workers if expected >= ALONE_BYTES else 1

    def batches() -> Iterator[pa.RecordBatch]:
        done = 0
        for encoded in map_shards(
            partial(rows.encode, recipe), rows.tasks(artifact, source), workers
        ):
            for name, count in encoded.counts.items():
                counts[name] = counts.get(name, Counts()).plus(count)
                done += count.bytes
            report.progress(done, expected, "B")
            yield encoded.rows

    buckets = shuffle.scatter(
        batches(), shuffle.bucket_count(expected, config.shard_bytes), table, out
    )
    for done, _ in enumerate(map_shards(shuffle.settle, buckets, workers), start=1):
        report.progress(done, len(buckets), "shards")
    return counts


def _source_bytes(artifact: Artifact, table: str, fix: str) -> dict[str, int]:
    if not artifact.rows(table):
        others = ", ".join(
            f"{count} in {name}" for name, count in artifact.manifest.rows.items() if name != table
        )
        raise InputError(f"{artifact}.{table}", f"0 documents to pack ({others})", fix)
    return rows.source_bytes(artifact, table)
