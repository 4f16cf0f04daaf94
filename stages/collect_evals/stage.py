"""Held-out documents and benchmark files → eval_items: pages for bits per byte, and multiple-choice items."""

from __future__ import annotations

from collections import Counter
from typing import Any

from data_contracts import Artifact, Draft, InputError
from stages.collect_evals import benchmarks, items, nearest, seen
from stages.collect_evals.config import CollectEvalsConfig
from stages.report import Facts, Report


def run(
    config: CollectEvalsConfig, *, unique_documents: Artifact, out: Draft, report: Report
) -> Facts:
    """Draw pages, make items of them, add the benchmark files.

    Raises InputError if nothing is held out or a benchmark row is not in shape.
    """
    examined = benchmarks.read(config.benchmark_files)
    if not unique_documents.rows("heldout"):
        raise InputError(
            f"{unique_documents}.heldout",
            f"0 held-out documents ({unique_documents.rows('train')} for training, {unique_documents.rows('rejects')} duplicates)",
            "raise dedup.heldout_share or give the crawl more pages",
        )
    pages = nearest.draw(
        unique_documents, config.max_pages, config.max_page_characters, config.seed
    )
    near = nearest.neighbours(pages)
    trained_on = seen.in_training(pages, unique_documents, config.workers, report)
    for done, task in enumerate(items.TASKS, start=1):
        examined += items.make(task, pages, near, trained_on, config)
        report.progress(done, len(items.TASKS), "tasks")
    examined = list(
        {row["id"]: row for row in examined}.values()
    )  # a benchmark may hold a question twice

    out.write(
        "pages",
        [
            {"id": page.id, "url": page.url, "title": page.title, "text": page.text}
            for page in pages
        ],
    )
    out.write("items", examined)

    notes = []
    if not examined and config.max_items:
        notes.append(
            f"No items: {len(pages)} held-out pages have no sentences that fit; bits per byte is the only measure."
        )
        report.note(notes[0])
    return Facts(
        figures=_figures(examined, pages),
        samples=list({row["task"]: _shown(row) for row in reversed(examined)}.values()),
        notes=notes,
    )


def _figures(
    examined: list[dict[str, Any]], pages: list[nearest.Page]
) -> dict[str, float | int | str | bool | None]:
    counts = Counter(row["task"] for row in examined)
    made = [
        ([len(choice) for choice in row["choices"]], row["answer"])
        for row in examined
        if row["origin"] == "heldout"
    ]
    figures: dict[str, float | int | str | bool | None] = {
        "items": len(examined),
        "pages": len(pages),
        "page_bytes": sum(len(page.text.encode()) for page in pages),
    }
    figures |= {f"items of {task}": counts[task] for task in sorted(counts)}
    if made:  # a reader who takes the longest or the shortest choice should be right as often as by chance
        figures["score of the longest choice"] = round(
            sum(sizes[right] == max(sizes) for sizes, right in made) / len(made), 4
        )
        figures["score of the shortest choice"] = round(
            sum(sizes[right] == min(sizes) for sizes, right in made) / len(made), 4
        )
    return figures


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("task", "question", "choices", "answer")}
