"""The tasks that lm-eval evaluates: those made of the items, and further tasks of the settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_contracts import Artifact, InputError
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.scores import Scores
from stages.evaluate.tasks import RenderedTasks, render
from stages.report import Report


def score_tasks(
    config: EvaluateConfig,
    model: Any,
    tokenizer: Any,
    length: int,
    eval_items: Artifact,
    folder: Path,
    report: Report,
) -> Scores:
    """Evaluate the tasks made of the items, then those of `evaluate.tasks`.

    Args:
        config: The settings of the stage.
        model: A causal language model of transformers.
        tokenizer: Its tokenizer.
        length: Tokens that the model sees at once.
        eval_items: The items.
        folder: Where the rendered tasks are written.
        report: Hears of progress.
    """
    rendered = render(eval_items, folder, lambda text: len(tokenizer.encode(text)), length)
    scores = Scores(notes=_notes(rendered, eval_items, length))
    if not rendered.names and not config.tasks:
        return scores
    from stages.evaluate import results  # lm-eval takes seconds to import
    from stages.evaluate.harness import Harness

    def on_progress(seen: int, total: int) -> None:
        report.progress(seen, total, "sequences")

    harness = Harness(model, tokenizer, folder, rendered.names, length, config, on_progress)
    harness.check(config.tasks)
    for name in dict.fromkeys(config.tasks):
        with missing_as_note(name, config, scores):
            harness.load(name)
    found = [harness.local()] if rendered.names else []
    for name in harness.loaded:
        with missing_as_note(name, config, scores):
            found.append(harness.further(name))
            scores.notes += found[-1].get("notes", [])
    measured: list[dict[str, Any]] = []
    for result in found:
        measured += results.score_rows(result)
        scores.samples += results.sample_rows(result)
    if len(rendered.names) > 1:
        measured.insert(0, results.pooled(found[0]))
    scores.scores = measured + scores.scores
    scores.results = results.merge(found, folder)
    return scores


def _notes(rendered: RenderedTasks, eval_items: Artifact, length: int) -> list[str]:
    notes = []
    if not rendered.names:
        notes.append(
            f"{eval_items} has no multiple-choice items that fit the context: "
            "only pages were scored."
        )
    if rendered.too_long:
        notes.append(
            f"{rendered.too_long} items were left out: "
            f"a choice is longer than the model's context of {length} tokens."
        )
    if rendered.cut:
        notes.append(
            f"{rendered.cut} items were asked without the beginning of their question: "
            f"the model's context is {length} tokens."
        )
    return notes


@contextmanager
def missing_as_note(name: str, config: EvaluateConfig, scores: Scores) -> Iterator[None]:
    """Record a missing score and a note that says why, if a further task fails.

    Args:
        name: The task.
        config: The setting `unreachable`.
        scores: Receives the missing score and the note.

    Raises:
        InputError: The task failed, and `unreachable` is "error".
    """
    try:
        yield
    except InputError as error:
        if config.unreachable == "error":
            raise
        scores.notes.append(f"{error.what}: {error.why}. To repair: {error.fix}")
        scores.scores.append({"task": name, "metric": "acc", "n": 0, "higher_is_better": True})
