"""Reads benchmark files of the user: JSONL or Parquet, one row per question.

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

KEYS = ("question", "choices", "answer")
SHAPE = '{"question": "…", "choices": ["…", "…"], "answer": 0}'


def read(paths: tuple[Path, ...]) -> list[dict[str, Any]]:
    """Return the rows of the items table, in the order of the files.

    Raises:
        InputError: A row has another shape. The message names its file and its number.
        ConfigError: Two files have the same task name, or a file has none.
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
        for number, row, broken in read_rows(str(path)):
            if broken:
                raise _bad_row(path, number, f"is {broken}")
            problem = _problem(row)
            if problem:
                raise _bad_row(path, number, problem)
            rows.append(_item(task, path, row))
    return rows


def task_name(path: Path) -> str:
    """Return the file's name without suffix, as lower-case letters, digits and underscores.

    Raises:
        ConfigError: Nothing of the name is left.
    """
    stem = path.name.split(".")[0].lower()
    name = re.sub(r"[^a-z0-9]+", "_", stem).strip("_")
    if not name:
        raise ConfigError(
            f"benchmark file {path}",
            "its name gives no task name",
            "rename it to letters and digits, e.g. my_test.jsonl",
        )
    return name


def _bad_row(path: Path, number: int, problem: str) -> InputError:
    location = f"benchmark file {path}, row {number}"
    return InputError(location, problem, f"each row must be {SHAPE}")


def _problem(row: Any) -> str | None:
    """Say what is wrong with a row, if anything is."""
    if not isinstance(row, dict):
        return "is not an object"
    missing = [key for key in KEYS if row.get(key) is None]
    if missing:
        return f"lacks {', '.join(missing)}"
    question, choices, answer = row["question"], row["choices"], row["answer"]
    if not _is_text(question):
        return "question is not a text"
    if not isinstance(choices, list) or len(choices) < 2:
        return "choices is not a list of at least two texts"
    if not all(map(_is_text, choices)):
        return "choices is not a list of at least two texts"
    if len(set(map(str.strip, choices))) != len(choices):
        return "two choices are equal"
    is_index = isinstance(answer, int) and not isinstance(answer, bool)
    if not is_index or not 0 <= answer < len(choices):
        return f"answer = {answer!r} is not an index from 0 to {len(choices) - 1}"
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _item(task: str, path: Path, row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of the items table for a sound row of a file."""
    question = row["question"].rstrip()
    choices = list(map(str.strip, row["choices"]))
    right = choices[row["answer"]]
    return {
        "id": digest(task, question, *choices),
        "task": task,
        "question": question,
        "choices": choices,
        "answer": row["answer"],
        "evidence": f"{question} {right}",
        "origin": "benchmark",
        "document": None,
        "url": f"file://{path.name}",
    }
