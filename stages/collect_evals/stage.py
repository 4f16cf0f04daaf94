"""Held-out documents and benchmark files → eval_items.

The pages are for bits per byte; the items are multiple-choice questions.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from data_contracts import Artifact, Draft, InputError
from stages.collect_evals import benchmarks, items, nearest, seen
from stages.collect_evals.config import CollectEvalsConfig
from stages.report import Facts, Report

SAMPLE_COLUMNS = ("task", "question", "choices", "answer")

Figures = dict[str, float | int | str | bool | None]


def run(
    config: CollectEvalsConfig, *, unique_documents: Artifact, out: Draft, report: Report
) -> Facts:
    """Draw pages, make items of them and add the benchmark files.

    Args:
        config: The settings.
        unique_documents: The documents, with tables `heldout` and `train`.
        out: The draft that is written to.
        report: Receives progress and notes.

    Raises:
        InputError: There are no held-out documents, or a row of a benchmark file is malformed.
    """
    rows = benchmarks.read(config.benchmark_files)
    if not unique_documents.rows("heldout"):
        train, duplicates = unique_documents.rows("train"), unique_documents.rows("rejects")
        raise InputError(
            f"{unique_documents}.heldout",
            f"0 held-out documents ({train} for training, {duplicates} duplicates)",
            "raise dedup.heldout_share or give the crawl more pages",
        )
    pages = nearest.draw(
        unique_documents, config.max_pages, config.max_page_characters, config.seed
    )
    near = nearest.neighbours(pages)
    trained_on = seen.in_training(pages, unique_documents, config.workers, report)
    for done, task in enumerate(items.TASKS, start=1):
        rows += items.make(task, pages, near, trained_on, config)
        report.progress(done, len(items.TASKS), "tasks")
    rows = _without_repetitions(rows)

    out.write("pages", list(map(_page_row, pages)))
    out.write("items", rows)

    notes = []
    if not rows and config.max_items:
        note = (
            f"No items: {len(pages)} held-out pages have no sentences that fit;"
            " bits per byte is the only measure."
        )
        notes.append(note)
        report.note(note)
    return Facts(
        figures=_figures(rows, pages),
        samples=_samples(rows),
        notes=notes,
    )


def _without_repetitions(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows, each id once: a benchmark may hold a question twice. The last one counts."""
    by_id: dict[str, dict[str, Any]] = {}
    for row in rows:
        by_id[row["id"]] = row
    return list(by_id.values())


def _page_row(page: nearest.HeldoutPage) -> dict[str, Any]:
    return {
        "id": page.id,
        "url": page.url,
        "title": page.title,
        "text": page.text,
    }


def _samples(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first item of each task, those of the last task first."""
    first_of_task: dict[str, dict[str, Any]] = {}
    for row in reversed(rows):
        first_of_task[row["task"]] = row
    return [_sample(row) for row in first_of_task.values()]


def _sample(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in SAMPLE_COLUMNS}


def _figures(rows: list[dict[str, Any]], pages: list[nearest.HeldoutPage]) -> Figures:
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row["task"]] += 1
    page_bytes = 0
    for page in pages:
        page_bytes += len(page.text.encode())
    figures: Figures = {
        "items": len(rows),
        "pages": len(pages),
        "page_bytes": page_bytes,
    }
    for task in sorted(counts):
        figures[f"items of {task}"] = counts[task]
    made = [row for row in rows if row["origin"] == "heldout"]
    if made:
        figures |= _scores_by_length(made)
    return figures


def _scores_by_length(rows: list[dict[str, Any]]) -> Figures:
    """Return the scores of readers who always take the longest or the shortest choice.

    Both should be near chance: the length of a choice must not give the answer away.
    """
    longest_right = 0
    shortest_right = 0
    for row in rows:
        lengths = list(map(len, row["choices"]))
        right_length = lengths[row["answer"]]
        longest_right += right_length == max(lengths)
        shortest_right += right_length == min(lengths)
    return {
        "score of the longest choice": round(longest_right / len(rows), 4),
        "score of the shortest choice": round(shortest_right / len(rows), 4),
    }
