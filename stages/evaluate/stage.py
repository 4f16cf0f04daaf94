"""evaluate: a checkpoint and evaluation items become scores, each beside what a model without knowledge gets."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from data_contracts import Artifact, ConfigError, Draft, InputError
from stages.evaluate import recall
from stages.evaluate.answers import greedy_answer
from stages.evaluate.bits_per_byte import (
    Page,
    bits_per_byte,
    measure,
    standard_error,
    xz_bits_per_byte,
)
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.tasks import BASE_PAGES, PAGES, render
from stages.lm import transformers_model
from stages.lm.chat import chat_template
from stages.report import Facts, Report

SIGNIFICANT = 2.0  # standard errors
RECALL_ROWS = 64  # questions that are answered together; answers do not depend on it


def run(
    config: EvaluateConfig,
    *,
    checkpoint: Artifact,
    eval_items: Artifact,
    out: Draft,
    report: Report,
    base_checkpoint: Artifact | None = None,
    conversations: Artifact | None = None,
) -> Facts:
    """Multiple choice by lm-eval, bits per byte by windows over the pages, recall, a few answers to read.

    Learning to chat costs a model some of what it knew of plain pages; with `base_checkpoint`, its bits per byte stand beside.
    With `conversations`, it is asked about the names of `recall`.
    """
    if (
        not eval_items.rows("items")
        and not eval_items.rows("pages")
        and not config.tasks
        and not config.recall.names
    ):
        why = "0 items and 0 pages: there is nothing to evaluate on"
        raise InputError(
            f"{eval_items}", why, f"see what collect_evals refused: groundup show {eval_items}"
        )
    model, tokenizer = load(checkpoint.path, config.device)
    length = config.max_length or model.config.max_position_embeddings
    answers = answered(config, checkpoint, model, tokenizer, length)
    # from here on, text that spells a special token is text; transformers sets the second from the first at every call
    tokenizer.split_special_tokens = tokenizer.backend_tokenizer.encode_special_tokens = True
    choices = examine(config, model, tokenizer, length, eval_items, out.scratch / "tasks", report)
    read = {PAGES: read_pages(config, model, tokenizer, length, eval_items, report)}
    del model, tokenizer
    gc.collect()  # lm-eval's objects refer to each other, and to the model: it would stay in memory beside the next
    if base_checkpoint is not None and base_checkpoint.id != checkpoint.id:
        base, base_tokenizer = load(base_checkpoint.path, config.device)
        base_tokenizer.backend_tokenizer.encode_special_tokens = True
        length = config.max_length or base.config.max_position_embeddings
        read[BASE_PAGES] = read_pages(config, base, base_tokenizer, length, eval_items, report)
        del base, base_tokenizer
    remembered = examine_recall(config, checkpoint, conversations, out, report)
    xz = (
        xz_bits_per_byte(text for _, text in islice(_texts(eval_items), config.limit))
        if read[PAGES]
        else None
    )
    scores = (
        choices.scores
        + remembered.scores
        + [row for task, pages in read.items() for row in page_scores(task, pages, xz)]
    )
    samples = (
        choices.samples
        + remembered.samples
        + [row for task, pages in read.items() for row in page_samples(task, pages)]
    )
    out.write("scores", scores)
    out.write("samples", samples)
    out.path("results.json").write_text(
        json.dumps(choices.results, indent=1, sort_keys=True, default=str) + "\n", "utf-8"
    )
    notes = (
        choices.notes
        + remembered.notes
        + [sentence for row in scores if (sentence := verdict(row))]
    )
    for note in notes:
        report.note(note)
    return Facts(figures=_figures(checkpoint, scores, answers), samples=answers, notes=notes)


def answered(
    config: EvaluateConfig, checkpoint: Artifact, model: Any, tokenizer: Any, length: int
) -> list[dict[str, Any]]:
    """The answers to `prompts`, through the chat template.

    Raises ArtifactError if that goes beyond its limits.
    """
    chats = [[{"role": "user", "content": prompt}] for prompt in config.prompts]
    made = []
    for prompt, chat in zip(
        config.prompts, chat_template(checkpoint).render(chats, prompt=True), strict=True
    ):
        ids = tokenizer.backend_tokenizer.encode(chat.text, add_special_tokens=False).ids
        made.append(greedy_answer(model, tokenizer, prompt, ids, config.new_tokens, length))
    return made


def load(folder: Path, device: str) -> tuple[Any, Any]:
    """(model in float32, tokenizer), in the classes of transformers.

    Raises ConfigError if there is no such device, ArtifactError if the folder is no checkpoint.
    """
    chosen = device_name(device)
    model, tokenizer = transformers_model.load(folder)
    return model.to(chosen), tokenizer


def device_name(device: str) -> str:
    """The device that the settings mean. Raises ConfigError if there is no such device."""
    cards = torch.cuda.device_count()
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= cards:
        raise ConfigError(
            f"evaluate.device = {device!r}",
            f"PyTorch sees {cards} CUDA devices here",
            "--set device=auto takes what there is",
        )
    return ("cuda" if cards else "cpu") if device == "auto" else device


@dataclass
class Choices:
    """What lm-eval found: rows of the two tables, its own result, and what a reader must know."""

    scores: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def examine(
    config: EvaluateConfig, model: Any, tokenizer: Any, length: int, eval_items: Artifact, folder: Path, report: Report
) -> Choices:  # fmt: skip
    """The local tasks made of the items, then those of the library."""
    made = render(eval_items, folder, lambda text: len(tokenizer.encode(text)), length)
    told = Choices(
        notes=[]
        if made.names
        else [
            f"{eval_items} has no multiple-choice items that fit the context: only pages were scored."
        ]
    )
    if made.too_long:
        told.notes.append(
            f"{made.too_long} items were left out: a choice is longer than the model's context of {length} tokens."
        )
    if made.cut:
        told.notes.append(
            f"{made.cut} items were asked without the beginning of their question: the model's context is {length} tokens."
        )
    if not made.names and not config.tasks:
        return told
    from stages.evaluate.harness import (
        Harness,
        merge,
        pooled,
        sample_rows,
        score_rows,
    )  # lm-eval takes seconds to import

    exam = Harness(
        model,
        tokenizer,
        folder,
        made.names,
        length,
        config.batch_size,
        config.seed,
        config.limit,
        config.allow_code,
    )
    exam.hear(lambda seen, total: report.progress(seen, total, "sequences"))
    exam.check(config.tasks)
    for name in dict.fromkeys(config.tasks):
        with missing(name, config, told):
            exam.load(name)
    found = [exam.local()] if made.names else []
    for name in exam.loaded:
        with missing(name, config, told):
            found.append(exam.further(name))
            told.notes += found[-1].get("notes", [])
    told.scores = [row for result in found for row in score_rows(result)] + told.scores
    if len(made.names) > 1:
        told.scores.insert(0, pooled(found[0]))
    told.samples = [row for result in found for row in sample_rows(result)]
    told.results = merge(found, folder)
    return told


def examine_recall(
    config: EvaluateConfig,
    checkpoint: Artifact,
    conversations: Artifact | None,
    out: Draft,
    report: Report,
) -> Choices:
    """Questions about the names of the settings, if there are any.

    Raises:
        ConfigError: There are names, and no conversations that answer questions about them.
    """
    found = Choices()
    names = config.recall.names
    if not names:
        return found
    if conversations is None:
        fix = "add conversations=NAME/conversations, or set evaluate.recall.names to nothing"
        raise ConfigError(
            "evaluate.recall.names",
            f"asks about {len(names)} names, and no conversations are given",
            fix,
        )
    exam = recall.exam(conversations, config.recall)
    if exam.missing:
        shown = ", ".join(exam.missing[:5]) + (" …" if len(exam.missing) > 5 else "")
        found.notes.append(
            f"recall: {len(exam.missing)} of {len(names)} names stand in no training conversation: {shown}."
        )
    total = len(exam.questions)
    device = device_name(config.device)
    answers = recall.ask(
        checkpoint.path,
        device,
        exam,
        config.recall.new_tokens,
        RECALL_ROWS,
        lambda done: report.progress(done, total, "questions"),
    )
    found.scores, found.samples = [*recall.score_rows(answers)], [*recall.sample_rows(answers)]
    return found


@contextmanager
def missing(name: str, config: EvaluateConfig, told: Choices) -> Iterator[None]:
    """A further task that fails costs its own score, and a note says why; or it stops the stage, if the settings say so."""
    try:
        yield
    except InputError as error:
        if config.unreachable == "error":
            raise
        told.notes.append(f"{error.what}: {error.why}. To repair: {error.fix}")
        told.scores.append({"task": name, "metric": "acc", "n": 0, "higher_is_better": True})


def read_pages(
    config: EvaluateConfig,
    model: Any,
    tokenizer: Any,
    length: int,
    eval_items: Artifact,
    report: Report,
) -> list[Page]:
    """What every held-out page costs the model."""
    total = min(eval_items.rows("pages"), config.limit or eval_items.rows("pages"))
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    stride = min(config.stride or max(1, length // 2), length)
    rows = islice(_texts(eval_items), config.limit)
    measured = []
    for page in measure(
        model, tokenizer.backend_tokenizer, first, rows, length, stride, config.batch_size
    ):
        measured.append(page)
        report.progress(len(measured), total, "pages")
    return measured


def page_scores(task: str, pages: list[Page], xz: float | None) -> list[dict[str, Any]]:
    """Bits per byte, beside those of xz on the same bytes. No row if there are no pages."""
    if not pages:
        return []
    value = bits_per_byte(pages)
    return [
        {
            "task": task, "metric": "bits_per_byte", "value": value, "stderr": standard_error(pages),
            "n": len(pages) if value is not None else 0,
            "baseline": xz, "baseline_name": "xz -9e", "higher_is_better": False,
        }
    ]  # fmt: skip


def page_samples(task: str, pages: list[Page]) -> list[dict[str, Any]]:
    """One row per page; pages for which the model gave no number are left out."""
    return [
        {"task": task, "item": page.id, "loglikelihoods": [-page.nats]}
        for page in pages
        if math.isfinite(page.nats)
    ]


def _texts(eval_items: Artifact) -> Iterator[tuple[str, str]]:
    for batch in eval_items.batches("pages", ["id", "text"], batch_size=256):
        yield from zip(
            batch.column("id").to_pylist(), batch.column("text").to_pylist(), strict=True
        )


def verdict(row: dict[str, Any]) -> str | None:
    """The sentence that a reader of the score must know, if it has a baseline or no value."""
    what = f"{row['task']} {row['metric']}"
    if row.get("value") is None:
        return (
            f"{what}: not measured; the model gave no numbers, or there were no items or no data."
        )
    if row.get("baseline") is None:
        return None
    beside = f"{row['value']:.3f} beside {row['baseline']:.3f} ({row['baseline_name']})"
    if not row["higher_is_better"]:
        return f"{what}: {beside}, {'below' if row['value'] < row['baseline'] else 'NOT below'} its baseline."
    if row["stderr"] is None:
        return (
            f"{what}: {beside}; its standard error is unknown, so nothing can be said about chance."
        )
    above = row["value"] > row["baseline"] + SIGNIFICANT * row["stderr"]
    return f"{what}: {beside}, {'above' if above else 'NOT above'} chance by more than two standard errors ({row['stderr']:.3f})."


def _figures(
    checkpoint: Artifact, scores: list[dict[str, Any]], answers: list[dict[str, Any]]
) -> dict[str, Any]:
    figures: dict[str, Any] = {"checkpoint": checkpoint.id}
    for row in scores:
        figures[f"{row['task']}_{row['metric']}"] = (
            None if row.get("value") is None else round(row["value"], 4)
        )
        if row.get("baseline") is not None:
            figures[f"{row['task']}_{row['metric']} ({row['baseline_name']})"] = round(
                row["baseline"], 4
            )
    return figures | {
        "answers": len(answers),
        "answers_that_end": sum(sample["ended"] for sample in answers),
    }
