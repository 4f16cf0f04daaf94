"""pack: training_documents, unique_documents, tokenizer → token_shards.

Encodes documents, shuffles them and writes them as shards of token ids.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from data_contracts import Artifact, ArtifactKey, ConfigError, Draft, InputError
from data_contracts.files import sha256
from stages.execution.processes import local
from stages.execution.shards import map_shards
from stages.pack import rows, shuffle
from stages.pack.config import PackConfig
from stages.pack.encode import encoder_of
from stages.pack.rows import Counts, RowSettings
from stages.report import Facts, Report
from stages.text.bucket_sort import bucket_count

ALONE_BYTES = 16_000_000  # with less text, worker processes take longer to start than they save


@dataclass(frozen=True)
class _Split:
    """Documents to pack.

    Attributes:
        documents: The artifact that they are in.
        documents_table: The table that they are in.
        table: The table of token_shards that they go to.
        bytes_by_source: UTF-8 bytes of their texts.
        settings: What their rows are like.
    """

    documents: Artifact
    documents_table: str
    table: str
    bytes_by_source: dict[str, int]
    settings: RowSettings


def run(
    config: PackConfig,
    *,
    training_documents: Artifact,
    unique_documents: Artifact,
    tokenizer: Artifact,
    out: Draft,
    report: Report,
) -> Facts:
    """Encode both splits and write them as shuffled shards.

    Held-out documents occur once each, whatever `epochs` says.

    Args:
        config: The settings.
        training_documents: The documents to train on.
        unique_documents: The documents of which those held out are packed.
        tokenizer: The tokenizer.
        out: The draft that is written to.
        report: Receives the progress.

    Raises:
        InputError: A split is empty, or the training split is too small.
        ConfigError: `epochs` names an unknown source.
    """
    train_bytes = _source_bytes(
        training_documents,
        "documents",
        "give the crawl more pages, or loosen the stage that rejected them",
    )
    heldout_bytes = _source_bytes(
        unique_documents, "heldout", "raise dedup.heldout_share or give the crawl more pages"
    )
    _check_sources(config, train_bytes)
    file = tokenizer.file("tokenizer")
    settings = RowSettings(config.seed, config.max_row_tokens, config.epochs)
    once = RowSettings(config.seed, config.max_row_tokens)
    train_split = _Split(training_documents, "documents", "train", train_bytes, settings)
    heldout_split = _Split(unique_documents, "heldout", "heldout", heldout_bytes, once)
    train = _pack(train_split, tokenizer.key, config, out, report)
    heldout = _pack(heldout_split, tokenizer.key, config, out, report)
    digest_and_size = f"{sha256(file)} {encoder_of(tokenizer.key).vocabulary_size}\n"
    out.path("tokenizer.sha256").write_text(digest_and_size, "utf-8")

    total = _total(train.values())
    if total.tokens < config.min_train_tokens:
        raise InputError(
            f"{training_documents}",
            f"{total.documents} documents give {total.tokens} tokens, "
            f"fewer than pack.min_train_tokens = {config.min_train_tokens}",
            "give the crawl more pages, raise pack.epochs, or lower pack.min_train_tokens",
        )
    return _facts(train, heldout)


def _pack(
    split: _Split,
    tokenizer: ArtifactKey,
    config: PackConfig,
    out: Draft,
    report: Report,
) -> dict[str, Counts]:
    """Encode and shuffle a split into its table of the draft.

    Args:
        split: The documents.
        tokenizer: Where its artifact is.
        config: The settings.
        out: The draft of the artifact.
        report: Receives the progress.

    Returns:
        Counts by source.
    """
    counts: dict[str, Counts] = {}
    expected = _expected_bytes(split)
    executor = local(config.workers if expected >= ALONE_BYTES else 1)
    encode = partial(rows.encode_shard, tokenizer, split.settings)
    tasks = rows.tasks(split.documents, split.documents_table)

    def batches() -> Iterator[pa.RecordBatch]:
        done = 0
        for encoded in map_shards(encode, tasks, executor):
            for source, added in encoded.counts.items():
                counts[source] = counts.get(source, Counts()).plus(added)
                done += added.bytes
            report.progress(done, expected, "B")
            yield encoded.rows

    count = bucket_count(expected, config.shard_bytes)
    shuffle.scatter(batches(), count, split.table, out)
    write_shard = partial(shuffle.write_shard, split.table, out)
    written = map_shards(write_shard, range(count), executor)
    for done, _ in enumerate(written, start=1):
        report.progress(done, count, "shards")
    return counts


def _expected_bytes(split: _Split) -> int:
    """Return the bytes of text with all epochs; approximate where an epoch is not whole."""
    epochs = split.settings.epochs
    expected = 0
    for source, size in split.bytes_by_source.items():
        expected += int(size * epochs.get(source, 1.0))
    return expected


def _check_sources(config: PackConfig, train_bytes: dict[str, int]) -> None:
    for source in sorted(set(config.epochs) - set(train_bytes)):
        similar = difflib.get_close_matches(source, train_bytes, n=1)
        fix = f"choose from: {', '.join(train_bytes)}"
        if similar:
            fix = f"did you mean {similar[0]!r}?"
        raise ConfigError(
            f"pack.epochs.{source}", "no training document comes from a source of that name", fix
        )


def _source_bytes(artifact: Artifact, table: str, fix: str) -> dict[str, int]:
    """Return the bytes of text by source.

    Args:
        artifact: The artifact with the documents.
        table: Its table.
        fix: What to do if the table is empty.

    Raises:
        InputError: The table is empty.
    """
    if artifact.rows(table):
        return rows.source_bytes(artifact, table)
    others = []
    for name, count in artifact.manifest.rows.items():
        if name != table:
            others.append(f"{count} in {name}")
    raise InputError(f"{artifact}.{table}", f"0 documents to pack ({', '.join(others)})", fix)


def _total(counts: Iterable[Counts]) -> Counts:
    total = Counts()
    for one in counts:
        total = total.plus(one)
    return total


def _facts(train: dict[str, Counts], heldout: dict[str, Counts]) -> Facts:
    train_total = _total(train.values())
    heldout_total = _total(heldout.values())
    figures: dict[str, float | int | str | bool | None] = {
        "train_tokens": train_total.tokens,
        "train_documents": train_total.documents,
        "heldout_tokens": heldout_total.tokens,
        "heldout_documents": heldout_total.documents,
        "bytes_per_token": round(train_total.bytes / train_total.tokens, 4),
    }
    for source in sorted(train):
        figures[f"train_tokens of {source}"] = train[source].tokens
    return Facts(figures=figures)
