"""Held-out pages: what the model pays for them, as rows of the tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

from data_contracts import Artifact
from stages.evaluate.bits_per_byte import Page, bits_per_byte, measure, standard_error
from stages.evaluate.config import EvaluateConfig
from stages.report import Report


def page_texts(eval_items: Artifact, limit: int | None) -> Iterator[tuple[str, str]]:
    """Return the id and the text of each page, at most `limit` of them.

    Args:
        eval_items: The evaluation items.
        limit: The most pages; None for all.
    """
    return islice(_all_texts(eval_items), limit)


def _all_texts(eval_items: Artifact) -> Iterator[tuple[str, str]]:
    for batch in eval_items.batches("pages", ["id", "text"], batch_size=256):
        ids, texts = batch.column("id").to_pylist(), batch.column("text").to_pylist()
        yield from zip(ids, texts, strict=True)


def read_pages(
    config: EvaluateConfig,
    model: Any,
    tokenizer: Any,
    length: int,
    eval_items: Artifact,
    report: Report,
) -> list[Page]:
    """Return the cost of every held-out page for the model, which sees `length` tokens at once.

    Args:
        config: The settings of the stage.
        model: A causal language model of transformers.
        tokenizer: Its tokenizer.
        length: Tokens that the model sees at once.
        eval_items: The evaluation items.
        report: Receives the progress.
    """
    pages = eval_items.rows("pages")
    total = min(pages, config.limit or pages)
    first = tokenizer.bos_token_id
    if first is None:
        first = tokenizer.eos_token_id
    costs = measure(
        model,
        tokenizer.backend_tokenizer,
        first,
        page_texts(eval_items, config.limit),
        length,
        stride=min(config.stride or max(1, length // 2), length),
        batch_size=config.batch_size,
    )
    measured = []
    for page in costs:
        measured.append(page)
        report.progress(len(measured), total, "pages")
    return measured


def page_scores(task: str, pages: list[Page], xz: float | None) -> list[dict[str, Any]]:
    """Return the bits per byte beside those of xz on the same bytes. No row if there are no pages.

    Args:
        task: Name of the score.
        pages: What each page costs.
        xz: Bits per byte of xz.

    Returns:
        Rows of the table `scores`.
    """
    if not pages:
        return []
    value = bits_per_byte(pages)
    row = {
        "task": task,
        "metric": "bits_per_byte",
        "value": value,
        "stderr": standard_error(pages),
        "n": len(pages) if value is not None else 0,
        "baseline": xz,
        "baseline_name": "xz -9e",
        "higher_is_better": False,
    }
    return [row]


def page_samples(task: str, pages: list[Page]) -> list[dict[str, Any]]:
    """Return one row per page. Pages for which the model gave no number are left out.

    Args:
        task: Name of the score.
        pages: What each page costs.

    Returns:
        Rows of the table `samples`.
    """
    return [
        {"task": task, "item": page.id, "loglikelihoods": [-page.nats]}
        for page in pages
        if math.isfinite(page.nats)
    ]
