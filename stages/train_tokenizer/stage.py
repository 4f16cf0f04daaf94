"""train_tokenizer: training_documents → tokenizer.

Draws a sample, learns a vocabulary, proves that it loses nothing, and measures it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from data_contracts import Artifact, Draft, InputError
from stages.report import Facts, Report
from stages.train_tokenizer import bpe, measure, sample, special
from stages.train_tokenizer.config import TrainTokenizerConfig

MEASURED_BYTES = 16_000_000  # of the sample, shared equally among sources and languages
FIGURES = (  # of report.json, that the facts repeat
    "vocabulary_size",
    "bytes_per_token",
    "unused_share",
    "learned_from_documents",
    "learned_from_bytes",
    "measured_bytes",
)


def run(
    config: TrainTokenizerConfig, *, training_documents: Artifact, out: Draft, report: Report
) -> Facts:
    """Learn a byte-level BPE and write the files that transformers loads.

    Raises:
        InputError: There are no documents, or the vocabulary is too small for the special tokens.
        ContractError: A text does not survive the round trip.
    """
    special_tokens = special.special_tokens(config.reserved_tokens)
    _check_inputs(config, training_documents, len(special_tokens))
    drawn = sample.draw(training_documents, config.seed, config.sample_bytes, MEASURED_BYTES)
    measured: list[dict[str, Any]] = []
    texts = _texts(training_documents, drawn, measured, report)
    tokenizer = bpe.train(
        texts, config.vocabulary_size, special_tokens, config.min_frequency, config.max_token_bytes
    )
    figures = measure.report(tokenizer, measured, drawn)
    files = {
        "tokenizer.json": tokenizer.to_str(pretty=True),
        "tokenizer_config.json": special.tokenizer_config(
            config.model_max_length, config.reserved_tokens
        ),
        "chat_template.jinja": special.CHAT_TEMPLATE.read_text("utf-8"),
        "report.json": json.dumps(figures, indent=1, ensure_ascii=False) + "\n",
    }
    for name, content in files.items():
        out.path(name).write_text(content, "utf-8")

    notes = []
    size = figures["vocabulary_size"]
    if size < config.vocabulary_size:
        note = f"The text gave {size} tokens of the {config.vocabulary_size} asked for."
        notes.append(note)
        report.note(note)
    shown = {name: figures[name] for name in FIGURES}
    return Facts(figures=shown | {"round_trip": "ok"}, notes=notes)


def _check_inputs(config: TrainTokenizerConfig, documents: Artifact, special_count: int) -> None:
    needed = 256 + special_count
    if config.vocabulary_size < needed:
        raise InputError(
            f"train_tokenizer.vocabulary_size = {config.vocabulary_size}",
            f"256 bytes and {special_count} special tokens need {needed}",
            "raise vocabulary_size or lower reserved_tokens",
        )
    if not documents.rows("documents"):
        rejected = documents.rows("rejects")
        raise InputError(
            f"{documents}",
            f"0 documents to learn from; decontaminate rejected {rejected}",
            "give the crawl more pages, or loosen the stage that rejected them",
        )


def _texts(
    documents: Artifact,
    drawn: sample.TokenizerSample,
    measured: list[dict[str, Any]],
    report: Report,
) -> Iterator[str]:
    """Yield the texts to learn from.

    Documents to measure on are added to `measured`, so that the corpus is not read again.
    """
    done = 0
    for row in sample.rows(documents, drawn.learn):
        if row["id"] in drawn.measure:
            measured.append(row)
        yield row["text"]
        done += len(row["text"].encode())
        report.progress(done, drawn.learn_bytes, "B")
