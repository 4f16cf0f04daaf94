"""evaluate: a checkpoint and evaluation items become scores, each beside its baseline.

The baseline is what a model without knowledge gets on the same items.
"""

from __future__ import annotations

import gc
import json
from typing import Any

from data_contracts import Artifact, Draft, InputError
from stages.evaluate.answers import greedy_answer
from stages.evaluate.bits_per_byte import Page, xz_bits_per_byte
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.lm_eval_tasks import score_tasks
from stages.evaluate.model import load
from stages.evaluate.pages import page_samples, page_scores, page_texts, read_pages
from stages.evaluate.recall import score_recall
from stages.evaluate.scores import Scores, figures, verdict
from stages.evaluate.tasks import BASE_PAGES, PAGES
from stages.lm.tokenizer import ModelTokenizer
from stages.report import Facts, Report


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
    """Score multiple choice with lm-eval, pages in bits per byte, and recall; keep some answers.

    Learning to chat costs a model some of what it knew of plain pages. With `base_checkpoint`, the
    scores say how much. With `conversations`, the model is asked about the names of `recall`.

    Args:
        config: The settings of the stage.
        checkpoint: The model to score.
        eval_items: Items and pages.
        out: The draft of the scores.
        report: Receives progress and notes.
        base_checkpoint: The model before it learned to chat.
        conversations: What the model was tuned on.
    """
    _check_not_empty(config, eval_items)
    tokenizer = ModelTokenizer(checkpoint)
    answers, from_tasks, pages = _score_checkpoint(config, tokenizer, eval_items, out, report)
    # lm-eval's objects refer to each other and to the model, which would stay in memory
    gc.collect()
    pages_by_task = {PAGES: pages}
    if base_checkpoint is not None and base_checkpoint.id != checkpoint.id:
        pages_by_task[BASE_PAGES] = _read_base(config, base_checkpoint, eval_items, report)
    from_recall = score_recall(config, tokenizer, conversations, report)
    xz = None
    if pages:
        xz = xz_bits_per_byte(text for _, text in page_texts(eval_items, config.limit))

    scores = from_tasks.scores + from_recall.scores
    samples = from_tasks.samples + from_recall.samples
    for task, read in pages_by_task.items():
        scores += page_scores(task, read, xz)
        samples += page_samples(task, read)
    out.write("scores", scores)
    out.write("samples", samples)
    results = json.dumps(from_tasks.results, indent=1, sort_keys=True, default=str)
    out.path("results.json").write_text(results + "\n", "utf-8")

    verdicts = [verdict(row) for row in scores]
    notes = from_tasks.notes + from_recall.notes
    notes += [sentence for sentence in verdicts if sentence]
    for note in notes:
        report.note(note)
    return Facts(figures=_figures(checkpoint, scores, answers), samples=answers, notes=notes)


def _check_not_empty(config: EvaluateConfig, eval_items: Artifact) -> None:
    if config.tasks or config.recall.names:
        return
    if not eval_items.rows("items") and not eval_items.rows("pages"):
        raise InputError(
            f"{eval_items}",
            "0 items and 0 pages: there is nothing to evaluate on",
            f"see what collect_evals refused: groundup show {eval_items}",
        )


def _score_checkpoint(
    config: EvaluateConfig,
    tokenizer: ModelTokenizer,
    eval_items: Artifact,
    out: Draft,
    report: Report,
) -> tuple[list[dict[str, Any]], Scores, list[Page]]:
    """Return the answers to `prompts`, the scores of lm-eval's tasks, and the cost of the pages."""
    model, fast = load(tokenizer, config.device)
    length = config.max_length or model.config.max_position_embeddings
    answers = answer_prompts(config, tokenizer, model, fast, length)
    # From here on, text that spells a special token is text. transformers sets the attribute of
    # the backend from its own at every call.
    fast.split_special_tokens = True
    fast.backend_tokenizer.encode_special_tokens = True
    folder = out.scratch / "tasks"
    from_tasks = score_tasks(config, model, fast, length, eval_items, folder, report)
    pages = read_pages(config, model, fast, length, eval_items, report)
    return answers, from_tasks, pages


def _read_base(
    config: EvaluateConfig, base_checkpoint: Artifact, eval_items: Artifact, report: Report
) -> list[Page]:
    """Return the cost of the pages for the model before it learned to chat."""
    model, fast = load(ModelTokenizer(base_checkpoint), config.device)
    fast.backend_tokenizer.encode_special_tokens = True
    length = config.max_length or model.config.max_position_embeddings
    return read_pages(config, model, fast, length, eval_items, report)


def answer_prompts(
    config: EvaluateConfig, tokenizer: ModelTokenizer, model: Any, fast: Any, length: int
) -> list[dict[str, Any]]:
    """Return the answers to `prompts`, through the chat template.

    Args:
        config: The settings of the stage.
        tokenizer: The tokenizer of the checkpoint.
        model: A causal language model of transformers.
        fast: The tokenizer in transformers' class.
        length: Tokens that the model sees at once.

    Raises:
        ArtifactError: The template exceeds its limits.
    """
    chats = [[{"role": "user", "content": prompt}] for prompt in config.prompts]
    rendered = tokenizer.chat_template().render(chats, prompt=True)
    encodings = tokenizer.encode([chat.text for chat in rendered])
    answers = []
    for prompt, encoding in zip(config.prompts, encodings, strict=True):
        answer = greedy_answer(model, fast, prompt, encoding.ids, config.new_tokens, length)
        answers.append(answer)
    return answers


def _figures(
    checkpoint: Artifact, scores: list[dict[str, Any]], answers: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "checkpoint": checkpoint.id,
        **figures(scores),
        "answers": len(answers),
        "answers_that_end": sum(answer["ended"] for answer in answers),
    }
