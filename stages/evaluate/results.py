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
    """One row per task or group and metric.

    A task has no value if one of its log-likelihoods is not a number: lm-eval would count such an
    item as right or wrong.

    Args:
        found: What lm-eval returned.
    """
    for task, results in found["results"].items():
        samples = _samples_of(found, task)
        is_measured = results.get("sample_len", 0) > 0 and all(map(_is_finite, samples))
        chance = _chance(samples)
        for key in results:
            metric, _, filter_name = key.partition(",")
            if filter_name and not metric.endswith("_stderr"):
                yield _score_row(found, task, key, chance, is_measured)


def _score_row(
    found: dict[str, Any], task: str, key: str, chance: float | None, is_measured: bool
) -> dict[str, Any]:
    """The row of one metric. key: "METRIC,FILTER", as lm-eval names its results."""
    results = found["results"][task]
    metric, _, filter_name = key.partition(",")
    value = _number(results[key]) if is_measured else None
    stderr = None if value is None else _number(results.get(f"{metric}_stderr,{filter_name}"))
    baseline = chance if metric in ACCURACIES else None
    task_version = found["versions"].get(task)
    return {
        "task": task,
        "metric": metric if filter_name == "none" else key,
        "value": value,
        "n": 0 if value is None else results["sample_len"],
        "stderr": stderr,
        "baseline": baseline,
        "baseline_name": None if baseline is None else "chance",
        "higher_is_better": bool(found["higher_is_better"].get(task, {}).get(metric, True)),
        "task_version": None if task_version is None else str(task_version),
    }


def _samples_of(found: dict[str, Any], task: str) -> list[dict[str, Any]]:
    """The samples of a task, or of all tasks of a group."""
    samples: list[dict[str, Any]] = []
    for leaf in leaves(found, task):
        samples += found["samples"][leaf]
    return samples


def leaves(found: dict[str, Any], task: str) -> list[str]:
    """The tasks of a group and of the groups in it; for a task, that task alone."""
    members = found["group_subtasks"].get(task)
    if members is None:
        return [task]
    names: list[str] = []
    for member in members:
        names += leaves(found, member)
    return names


def pooled(found: dict[str, Any]) -> dict[str, Any]:
    """The accuracy on the items of all tasks together: more items, so a smaller standard error."""
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
    stderr = math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else None
    return row | {"value": share, "n": n, "stderr": stderr}


def sample_rows(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per item, of the first filter: lm-eval has one per item and filter.

    Items whose log-likelihoods are not numbers are left out.
    """
    for task, samples in found["samples"].items():
        for sample in samples:
            if sample["filter"] == samples[0]["filter"] and _is_finite(sample):
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
    """The log-likelihood of each choice, in nats; empty for tasks that generate text."""
    values = []
    for response in sample["filtered_resps"]:
        if not isinstance(response, tuple | list) or len(response) != 2:
            continue
        value, _ = response
        if not isinstance(value, str):  # two texts: a task that draws two answers
            values.append(float(value))
    return values


def merge(found: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """The results of lm-eval together, without samples and without the path of `folder`."""
    merged: dict[str, Any] = {key: {} for key in KEPT}
    for result in found:
        for key in KEPT:
            merged[key] |= result.get(key, {})
    merged["lm_eval"] = version("lm_eval")
    merged["transformers"] = version("transformers")
    path_in_json = json.dumps(str(folder.resolve()))[1:-1]
    return json.loads(json.dumps(merged, default=str).replace(path_in_json, "."))


def _chance(samples: list[dict[str, Any]]) -> float | None:
    """The accuracy of a guess: the mean of 1 / choices. None if an item has fewer than two."""
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
