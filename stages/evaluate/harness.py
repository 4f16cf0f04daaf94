"""lm-eval on a model in memory: scores and samples as rows, nothing cached, no hub unless asked."""

from __future__ import annotations

import difflib
import json
import logging
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import numpy as np
import torch
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from data_contracts import ConfigError, InputError

KEPT = ("results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples")
POOLED = "all_items"
BOOTSTRAP = 1000  # lm-eval's standard error of a mean is exact; only other aggregations are bootstrapped


class CountingModel(HFLM):
    """Tells how many sequences it has seen so far, of how many that it has been asked for."""

    seen = total = 0
    heard: Callable[[int, int], None] | None = None

    def _loglikelihood_tokens(self, requests: list[tuple[Any, list[int], list[int]]], *args: Any, **settings: Any) -> Any:
        # choices of one item that differ in their last token only are one sequence
        self.total = self.seen + len({(*context, *choice[:-1]) for _, context, choice in requests})
        return super()._loglikelihood_tokens(requests, *args, **settings)

    def _model_call(self, inps: torch.Tensor, *args: Any, **settings: Any) -> torch.Tensor:
        self.seen += len(inps)
        if self.heard:
            self.heard(self.seen, self.total)
        return super()._model_call(inps, *args, **settings)


class Harness:
    """Evaluates tasks in `folder` and tasks of the library with one model."""

    def __init__(self, model: Any, tokenizer: Any, folder: Path, length: int, batch_size: int, seed: int, limit: int | None):
        for name in ("lm_eval", "datasets"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._seed, self._limit, self._log = seed, limit, folder / "lm_eval.log"
        self._ours = TaskManager(include_path=str(folder), include_defaults=False)
        self._library: TaskManager | None = None
        with self._quiet():
            self._model = CountingModel(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=length)

    def hear(self, heard: Callable[[int, int], None]) -> None:
        """Call `heard` with the number of sequences seen and the number asked for, at each batch. Each further task raises both."""
        self._model.heard = heard

    def local(self, names: list[str]) -> dict[str, Any]:
        """What lm-eval finds on rendered tasks. No hub is asked, whatever the environment says."""
        with offline(), self._quiet():
            return self._evaluate(self._ours.load(names))

    def library(self, name: str) -> dict[str, Any]:
        """What lm-eval finds on a task of its own.

        Raises ConfigError with the nearest name if there is none, InputError if its data cannot be had.
        """
        self._library = self._library or TaskManager()  # reads some 14,000 task files: 10 seconds
        try:
            with self._quiet():
                loaded = self._library.load([name])
        except KeyError:
            near = difflib.get_close_matches(name, self._library.all_tasks, n=1, cutoff=0.5)
            fix = f"did you mean {near[0]!r}?" if near else "lm-eval ls tasks shows all"
            raise ConfigError(f"evaluate.tasks {name!r}", "lm-eval has no task of that name", fix) from None
        except (OSError, ImportError) as error:  # what datasets raises when offline, not found or gated; a task's own requirements
            raise InputError(
                f"lm-eval task {name!r}", f"its data cannot be had: {error}", "go online, or leave it out of evaluate.tasks"
            ) from error
        with self._quiet():
            return self._evaluate(loaded)

    def _evaluate(self, loaded: Any) -> dict[str, Any]:
        random.seed(self._seed)
        np.random.seed(self._seed)
        torch.manual_seed(self._seed)
        for task in loaded["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=self._seed)
        found = evaluate(lm=self._model, task_dict=loaded, limit=self._limit, bootstrap_iters=BOOTSTRAP)
        return {key: found[key] for key in (*KEPT, "samples") if key in found}

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Progress bars go to a log in the scratch folder."""
        with self._log.open("a", encoding="utf-8") as log, redirect_stderr(log):
            yield


@contextmanager
def offline() -> Iterator[None]:
    """No hub is asked for anything inside, also if the libraries were imported long before."""
    before = huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def score_rows(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per task and metric. A task with a log-likelihood that is no number has no value: lm-eval would make a 0 or 1 of it."""
    for task, results in found["results"].items():
        samples = found["samples"].get(task, [])
        broken = sum(not all(map(math.isfinite, likelihoods(sample))) for sample in samples)
        members = found.get("group_subtasks", {}).get(task) or [task]
        n = sum(found["n-samples"].get(member, {}).get("effective", 0) for member in members)
        chance = _chance(samples)
        for key, value in results.items():
            metric, _, rule = key.partition(",")
            if not rule or metric.endswith("_stderr"):
                continue
            measured = _number(value) if n and not broken else None
            yield {
                "task": task, "metric": metric if rule == "none" else key, "value": measured, "n": n if measured is not None else 0,
                "stderr": _number(results.get(f"{metric}_stderr,{rule}")) if measured is not None else None,
                "baseline": chance if metric in ("acc", "acc_norm") else None,
                "baseline_name": "chance" if metric in ("acc", "acc_norm") and chance is not None else None,
                "higher_is_better": bool(found["higher_is_better"].get(task, {}).get(metric, True)),
                "task_version": str(found["versions"].get(task)) if found["versions"].get(task) is not None else None,
            }  # fmt: skip


def pooled(found: dict[str, Any]) -> dict[str, Any]:
    """Accuracy on the items of all tasks together: more items, so a smaller standard error."""
    samples = [sample for task in found["samples"].values() for sample in task]
    row = {"task": POOLED, "metric": "acc", "n": 0, "baseline": _chance(samples), "baseline_name": "chance", "higher_is_better": True}
    n = len(samples)
    if not all(math.isfinite(value) for sample in samples for value in likelihoods(sample)):
        return row
    share = sum(sample["acc"] for sample in samples) / n
    return row | {"value": share, "n": n, "stderr": math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else None}


def sample_rows(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per item; items whose log-likelihoods are no numbers are left out."""
    for task, samples in found["samples"].items():
        for sample in samples:
            values = likelihoods(sample)
            if not all(map(math.isfinite, values)):
                continue
            answer = sample["target"] if isinstance(sample["target"], int) and len(values) > 1 else None
            predicted = int(np.argmax(values)) if answer is not None else None
            yield {
                "task": task, "item": str(sample["doc"].get("id", sample["doc_id"])), "answer": answer, "predicted": predicted,
                "loglikelihoods": values, "correct": predicted == answer if answer is not None else None,
            }  # fmt: skip


def likelihoods(sample: dict[str, Any]) -> list[float]:
    """Log-likelihood of each choice, in nats; empty for tasks that generate text."""
    return [float(response[0]) for response in sample["filtered_resps"] if isinstance(response, tuple | list) and len(response) == 2]


def merge(found: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """lm-eval's results together, without samples, and without the place where they were made."""
    merged: dict[str, Any] = {key: {} for key in KEPT}
    for result in found:
        for key in KEPT:
            merged[key] |= result.get(key, {})
    merged["lm_eval"], merged["transformers"] = version("lm_eval"), version("transformers")
    return json.loads(json.dumps(merged, default=str).replace(str(folder.resolve()), "."))


def _chance(samples: list[dict[str, Any]]) -> float | None:
    counts = [len(likelihoods(sample)) for sample in samples]
    return sum(1 / count for count in counts) / len(counts) if counts and min(counts) > 1 else None


def _number(value: Any) -> float | None:
    """lm-eval writes "N/A" for what it cannot tell."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
