"""What lm-eval returns, as rows of the tables `scores` and `samples` and as one JSON object."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from stages.evaluate.tasks import POOLED

# the parts of lm-eval's result that are kept
KEPT = (
    "results",
    "groups",
    "group_subtasks",
    "configs",
    "versions",
    "n-shot",
    "higher_is_better",
    "n-samples",
)
ACCURACIES = ("acc", "acc_norm")


def score_rows(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Make one row per task or group and metric.

    A task has no value if one of its log-likelihoods is not a number: lm-eval would count such an
    item as right or wrong.

    Args:
        found: What lm-eval returned.

    Yields:
        Rows of the table `scores`.
    """
    for task, results in found["results"].items():
        samples = _samples_of(found, task)
        has_items = results.get("sample_len", 0) > 0
        is_measured = has_items and all(map(_is_finite, samples))
        chance = _chance(samples)
        for key in results:
            metric, _, filter_name = key.partition(",")
            if filter_name and not metric.endswith("_stderr"):
                yield _score_row(found, task, key, chance, is_measured)


def _score_row(
    found: dict[str, Any], task: str, key: str, chance: float | None, is_measured: bool
) -> dict[str, Any]:
    """Make the row of one metric.

    Args:
        found: What lm-eval returned.
        task: The task or group.
        key: "METRIC,FILTER", as lm-eval names its results.
        chance: The accuracy of a guess, if there is one.
        is_measured: Whether the task has a value.
    """
    results = found["results"][task]
    metric, _, filter_name = key.partition(",")
    better = found["higher_is_better"].get(task, {})
    row: dict[str, Any] = {
        "task": task,
        "metric": metric if filter_name == "none" else key,
        "value": None,
        "n": 0,
        "stderr": None,
        "baseline": None,
        "baseline_name": None,
        "higher_is_better": bool(better.get(metric, True)),
        "task_version": None,
    }
    if is_measured:
        row["value"] = _number(results[key])
    if row["value"] is not None:
        row["n"] = results["sample_len"]
        row["stderr"] = _number(results.get(f"{metric}_stderr,{filter_name}"))
    if chance is not None and metric in ACCURACIES:
        row["baseline"] = chance
        row["baseline_name"] = "chance"
    version_of_task = found["versions"].get(task)
    if version_of_task is not None:
        row["task_version"] = str(version_of_task)
    return row


def _samples_of(found: dict[str, Any], task: str) -> list[dict[str, Any]]:
    """Return the samples of a task, or of all tasks of a group."""
    samples: list[dict[str, Any]] = []
    for leaf in leaves(found, task):
        samples += found["samples"][leaf]
    return samples


def leaves(found: dict[str, Any], task: str) -> list[str]:
    """Return the tasks of a group and of the groups in it.

    Args:
        found: What lm-eval returned.
        task: A group; or a task, which is returned alone.
    """
    members = found["group_subtasks"].get(task)
    if members is None:
        return [task]
    names: list[str] = []
    for member in members:
        names += leaves(found, member)
    return names


def pooled(found: dict[str, Any]) -> dict[str, Any]:
    """Return the accuracy on the items of all tasks: more items, so a smaller standard error.

    Args:
        found: What lm-eval returned.

    Returns:
        A row of the table `scores`. It has no value if a log-likelihood is not a number.
    """
    samples: list[dict[str, Any]] = []
    for of_task in found["samples"].values():
        samples += of_task
    row = {
        "task": POOLED,
        "metric": "acc",
        "n": 0,
        "baseline": _chance(samples),
        "baseline_name": "chance",
        "higher_is_better": True,
    }
    if not all(map(_is_finite, samples)):
        return row
    n = len(samples)
    share = sum(sample["acc"] for sample in samples) / n
    stderr = None
    if n > 1:
        stderr = math.sqrt(share * (1 - share) / (n - 1))
    return row | {"value": share, "n": n, "stderr": stderr}


def sample_rows(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Make one row per item, of the first filter: lm-eval has one per item and filter.

    Items whose log-likelihoods are not numbers are left out.

    Args:
        found: What lm-eval returned.

    Yields:
        Rows of the table `samples`.
    """
    for task, samples in found["samples"].items():
        for sample in samples:
            is_first_filter = sample["filter"] == samples[0]["filter"]
            if is_first_filter and _is_finite(sample):
                yield _sample_row(task, sample)


def _sample_row(task: str, sample: dict[str, Any]) -> dict[str, Any]:
    values = likelihoods(sample)
    answer = predicted = correct = None
    if isinstance(sample["target"], int) and len(values) > 1:
        answer = sample["target"]
        predicted = int(np.argmax(values))
        correct = predicted == answer
    return {
        "task": task,
        "item": str(sample["doc"].get("id", sample["doc_id"])),
        "answer": answer,
        "predicted": predicted,
        "loglikelihoods": values,
        "correct": correct,
    }


def likelihoods(sample: dict[str, Any]) -> list[float]:
    """Return the log-likelihood of each choice, in nats.

    Args:
        sample: A sample of lm-eval.

    Returns:
        [choices]; empty for tasks that generate text.
    """
    values = []
    for response in sample["filtered_resps"]:
        if not isinstance(response, tuple | list) or len(response) != 2:
            continue
        value, _ = response
        if not isinstance(value, str):  # two texts: a task that draws two answers
            values.append(float(value))
    return values


def merge(found: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Return the results of lm-eval together, without samples.

    Args:
        found: What lm-eval returned, for each part of the evaluation.
        folder: The folder of the rendered tasks, whose path is replaced by ".".
    """
    merged: dict[str, Any] = {key: {} for key in KEPT}
    for result in found:
        for key in KEPT:
            merged[key] |= result.get(key, {})
    merged["lm_eval"] = version("lm_eval")
    merged["transformers"] = version("transformers")
    path_in_json = json.dumps(str(folder.resolve()))[1:-1]
    written = json.dumps(merged, default=str)
    return json.loads(written.replace(path_in_json, "."))


def _chance(samples: list[dict[str, Any]]) -> float | None:
    """Return the accuracy of a guess: the mean of 1 / choices.

    It is None if an item has fewer than two.
    """
    counts = [len(likelihoods(sample)) for sample in samples]
    if not counts or min(counts) <= 1:
        return None
    return sum(1 / count for count in counts) / len(counts)


def _is_finite(sample: dict[str, Any]) -> bool:
    return all(map(math.isfinite, likelihoods(sample)))


def _number(value: Any) -> float | None:
    """lm-eval writes "N/A" for a figure that it cannot compute."""
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None
