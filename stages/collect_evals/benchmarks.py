"""Benchmark files of the user: JSONL or Parquet, a row per question.

    {"question": "What is 2 + 2?\\nAnswer:", "choices": ["three", "four"], "answer": 1}

`answer` is the index of the right choice, from 0. A choice follows the question after one space.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from data_contracts import ConfigError, InputError
from stages.collect_evals.items import TASKS
from stages.digests import digest
from stages.user_files import read_rows


def read(paths: tuple[Path, ...]) -> list[dict[str, Any]]:
    """Rows of the items table, in the order of the files.

    Raises InputError naming file and row where a row is not as above, ConfigError if two files would have the same task name.
    """
    rows: list[dict[str, Any]] = []
    taken = set(TASKS)
    for path in paths:
        task = task_name(path)
        if task in taken:
            raise ConfigError(
                f"benchmark file {path}",
                f"its task would be called {task!r}, which is taken",
                "rename the file",
            )
        taken.add(task)
        rows += [
            _item(task, path, number, row, broken) for number, row, broken in read_rows(str(path))
        ]
    return rows


def task_name(path: Path) -> str:
    """The file's name without its ending, in small letters, digits and underscores."""
    name = re.sub(r"[^a-z0-9]+", "_", path.name.split(".")[0].lower()).strip("_")
    if not name:
        raise ConfigError(
            f"benchmark file {path}",
            "its name gives no task name",
            "rename it to letters and digits, e.g. my_test.jsonl",
        )
    return name


def _item(task: str, path: Path, number: int, row: Any, broken: str | None) -> dict[str, Any]:
    def wrong(why: str) -> InputError:
        shape = '{"question": "…", "choices": ["…", "…"], "answer": 0}'
        return InputError(f"benchmark file {path}, row {number}", why, f"each row must be {shape}")

    if broken:
        raise wrong(f"is {broken}")
    if not isinstance(row, dict) or (
        missing := [key for key in ("question", "choices", "answer") if row.get(key) is None]
    ):
        raise wrong(f"lacks {', '.join(missing)}" if isinstance(row, dict) else "is not an object")
    question, choices, answer = row["question"], row["choices"], row["answer"]
    if not isinstance(question, str) or not question.strip():
        raise wrong("question is not a text")
    if (
        not isinstance(choices, list)
        or len(choices) < 2
        or not all(isinstance(c, str) and c.strip() for c in choices)
    ):
        raise wrong("choices is not a list of at least two texts")
    question, choices = question.rstrip(), [choice.strip() for choice in choices]
    if len(set(choices)) != len(choices):
        raise wrong("two choices are equal")
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise wrong(f"answer = {answer!r} is not an index from 0 to {len(choices) - 1}")
    return {
        "id": digest(task, question, *choices), "task": task, "question": question, "choices": choices, "answer": answer,
        "evidence": f"{question} {choices[answer]}", "origin": "benchmark", "document": None, "url": f"file://{path.name}",
    }  # fmt: skip
