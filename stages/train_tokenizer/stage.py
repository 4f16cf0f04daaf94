"""training_documents → tokenizer: draw a sample, learn a vocabulary, prove that it loses nothing, measure it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from data_contracts import Artifact, Draft, InputError
from stages.report import Facts, Report
from stages.train_tokenizer import bpe, measure, sample, special
from stages.train_tokenizer.config import TrainTokenizerConfig

MEASURED_BYTES = 16_000_000  # of the sample, shared equally among sources and languages


def run(
    config: TrainTokenizerConfig, *, training_documents: Artifact, out: Draft, report: Report
) -> Facts:
    """Learn a byte-level BPE and write it as transformers loads it.

    Raises InputError if there is no document or the vocabulary has no room, ContractError if a text does not survive the round trip.
    """
    reserved = special.special_tokens(config.reserved_tokens)
    if config.vocabulary_size < 256 + len(reserved):
        raise InputError(
            f"train_tokenizer.vocabulary_size = {config.vocabulary_size}",
            f"256 bytes and {len(reserved)} special tokens need {256 + len(reserved)}",
            "raise vocabulary_size or lower reserved_tokens",
        )
    if not training_documents.rows("documents"):
        raise InputError(
            f"{training_documents}",
            f"0 documents to learn from; decontaminate refused {training_documents.rows('rejects')}",
            "give the crawl more pages, or loosen the stage that refused them",
        )
    drawn = sample.draw(training_documents, config.seed, config.sample_bytes, MEASURED_BYTES)
    measured: list[dict[str, Any]] = []
    texts = _texts(training_documents, drawn, measured, report)
    tokenizer = bpe.train(
        texts, config.vocabulary_size, reserved, config.min_frequency, config.max_token_bytes
    )
    figures = measure.report(tokenizer, measured, drawn)

    out.path("tokenizer.json").write_text(tokenizer.to_str(pretty=True), "utf-8")
    out.path("tokenizer_config.json").write_text(
        special.tokenizer_config(config.model_max_length, config.reserved_tokens), "utf-8"
    )
    out.path("chat_template.jinja").write_text(special.CHAT_TEMPLATE.read_text("utf-8"), "utf-8")
    out.path("report.json").write_text(
        json.dumps(figures, indent=1, ensure_ascii=False) + "\n", "utf-8"
    )

    notes = []
    if figures["vocabulary_size"] < config.vocabulary_size:
        notes.append(
            f"The text gave {figures['vocabulary_size']} tokens of the {config.vocabulary_size} asked for."
        )
        report.note(notes[0])
    shown = (
        "vocabulary_size",
        "bytes_per_token",
        "unused_share",
        "learned_from_documents",
        "learned_from_bytes",
        "measured_bytes",
    )
    return Facts(
        figures={name: figures[name] for name in shown} | {"round_trip": "ok"}, notes=notes
    )


def _texts(
    documents: Artifact, drawn: sample.Sample, measured: list[dict[str, Any]], report: Report
) -> Iterator[str]:
    """Texts to learn from. Documents to measure on are kept in `measured`, so that the corpus is not read once more."""
    done = 0
    for row in sample.rows(documents, drawn.learn):
        if row["id"] in drawn.measure:
            measured.append(row)
        yield row["text"]
        done += len(row["text"].encode())
        report.progress(done, drawn.learn_bytes, "B")
