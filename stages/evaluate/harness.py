"""lm-eval on a model in memory: scores and samples as rows, nothing cached, no hub unless asked."""

from __future__ import annotations

import copy
import difflib
import json
import logging
import math
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from traceback import walk_tb
from typing import Any, NoReturn

import datasets
import huggingface_hub.constants
import numpy as np
import torch
from evaluate import loading as metric_loading
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from data_contracts import ConfigError, GroundupError, InputError
from data_contracts.foreign_text import listed
from stages.evaluate import groups, patterns, task_files
from stages.evaluate.config import task_file
from stages.evaluate.tasks import POOLED, RESERVED

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
BOOTSTRAP = (
    1000  # lm-eval's standard error of a mean is exact; only other aggregations are bootstrapped
)
ANSWER_TOKENS = (
    "max_gen_toks",
    "max_new_tokens",
    "max_tokens",
    "max_completion_tokens",
)  # what tasks call the length of an answer
LEAVE = "leave it out of evaluate.tasks"
AGAIN = "ask again: groundup stage evaluate --name NAME --as-of DATE"
OURS = ("stages.", "flows.", "data_contracts.")


class CountingModel(HFLM):
    """Tells how many sequences it has seen so far, of how many that it has been asked for.

    An answer takes at most half of what the model sees at once: the question needs room, and lm-eval stops where it has none.
    """

    seen = total = 0
    cut = 0  # requests for a longer answer than there is room for
    heard: Callable[[int, int], None] | None = None

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], *args: Any, **settings: Any
    ) -> Any:
        # choices of one item that differ in their last token only are one sequence
        self.total = self.seen + len({(*context, *choice[:-1]) for _, context, choice in requests})
        return super()._loglikelihood_tokens(requests, *args, **settings)

    def _model_call(self, inps: torch.Tensor, *args: Any, **settings: Any) -> torch.Tensor:
        self._count(inps)
        return super()._model_call(inps, *args, **settings)

    def _model_generate(self, context: torch.Tensor, *args: Any, **settings: Any) -> torch.Tensor:
        self._count(context)
        return super()._model_generate(context, *args, **settings)

    def _count(self, batch: torch.Tensor) -> None:
        self.seen += len(batch)
        if self.heard:
            self.heard(self.seen, self.total)

    @property
    def max_gen_toks(self) -> int:
        """For tasks that do not say how long an answer may be."""
        return min(super().max_gen_toks, self.max_length // 2)

    def generate_until(self, requests: list[Any], *args: Any, **settings: Any) -> Any:
        self.total = self.seen + len(requests)
        return super().generate_until(
            [self._with_room(request) for request in requests], *args, **settings
        )

    def _with_room(self, request: Any) -> Any:
        prompt, wishes = request.args
        most = dict.fromkeys(ANSWER_TOKENS, self.max_length // 2) | {"max_length": self.max_length}
        try:
            wished = {name: int(wishes[name]) for name in most if wishes.get(name) is not None}
        except (AttributeError, TypeError, ValueError, OverflowError):
            return request  # lm-eval refuses it in its own words
        told = [wished[name] for name in ANSWER_TOKENS if name in wished]
        self.cut += (told or [super().max_gen_toks])[0] > self.max_length // 2
        made = copy.copy(request)  # the samples show what the task wished for
        made.arguments = (
            prompt,
            wishes | {name: min(length, most[name]) for name, length in wished.items()},
        )
        return made


class Harness:
    """Evaluates the rendered tasks called `names` in `folder`, and tasks of the library, with one model.

    allow_code: task files, and metrics from a hub, may run code.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        folder: Path,
        names: list[str],
        length: int,
        batch_size: int,
        seed: int,
        limit: int | None,
        allow_code: bool = False,
    ):
        for name in ("lm_eval", "datasets"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._folder, self._names, self._seed, self._limit = folder, names, seed, limit
        self._allow_code = allow_code
        self._scored = dict.fromkeys(names, "eval_items") | dict.fromkeys(
            RESERVED, "evaluate"
        )  # the name of a score → whose it is
        self.loaded: dict[str, Any] = {}  # further tasks
        with self._quiet():
            self._model = CountingModel(
                pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=length
            )

    @cached_property
    def _library(self) -> TaskManager:
        return TaskManager()  # reads some 14,000 task files: 10 seconds

    def hear(self, heard: Callable[[int, int], None]) -> None:
        """Call `heard` with the number of sequences seen and the number asked for, at each batch. Each further task raises both."""
        self._model.heard = heard

    def local(self) -> dict[str, Any]:
        """What lm-eval finds on the rendered tasks. No hub is asked, whatever the environment says."""
        with offline(), self._quiet():
            return self._evaluate(
                TaskManager(include_path=str(self._folder), include_defaults=False).load(
                    self._names
                )
            )

    def check(self, names: list[str]) -> None:
        """Look at what is asked for before any of it is loaded.

        Raises:
            ConfigError: A name is no task, group or tag of lm-eval (the nearest are told), a group in a file
                names such a one, or a task file would run code, and may not.
        """
        files = [file for name in names if (file := task_file(name))]
        if not self._allow_code:
            for file in files:
                task_files.check(file)
        unknown = [
            name
            for name in names
            if task_file(name) is None and name not in self._library.task_index
        ]
        if unknown:
            near = [
                match
                for name in unknown
                for match in difflib.get_close_matches(
                    name, self._library.all_tasks, n=1, cutoff=0.5
                )
            ]
            fix = (
                f"did you mean {', '.join(map(repr, near))}?"
                if near
                else "lm-eval ls tasks shows all"
            )
            raise ConfigError(
                f"evaluate.tasks {', '.join(map(repr, unknown))}",
                "lm-eval has no task of that name",
                fix,
            )
        for file in files:
            self._check_group(file)

    def _check_group(self, file: Path) -> None:
        if not groups.is_group(file):
            return
        if missing := groups.absent(file, self._library.task_index):
            why = f"its group names {listed(missing)}, and lm-eval has no task of that name"
            fix = "correct the file; lm-eval ls tasks shows all names, and a group finds no other files"
            raise ConfigError(f"evaluate.tasks {file}", why, fix)

    def load(self, name: str) -> None:
        """Read a further task and its data.

        Raises:
            InputError: That cannot be had, or would run what the model writes, or code from a hub, which it may not.
            ConfigError: A score of its is told already.
        """
        self._claim(name, [name])
        told = told_as_input(
            name, "it or its data cannot be had", f"{LEAVE}, or go online and {AGAIN}"
        )
        with self._quiet(), told, self._metrics(name):
            loaded = self._library.load([str(task_file(name) or name)])
        if any(getattr(task, "UNSAFE_CODE", False) for task in loaded["tasks"].values()):
            why = "it runs the code that the model writes, which this stage never does"
            raise InputError(f"lm-eval task {name!r}", why, LEAVE)
        self._claim(name, [*loaded["groups"], *loaded["tasks"]])
        self.loaded[name] = loaded

    def _claim(self, name: str, scores: list[str]) -> None:
        for score in scores:
            if (owner := self._scored.setdefault(score, name)) != name:
                fix = f"leave {name!r} or {owner!r} out, or rename the task file or the benchmark file"
                raise ConfigError(
                    f"evaluate.tasks {name!r}",
                    f"{score!r} would be told twice: it is a score of {owner!r}",
                    fix,
                )

    def further(self, name: str) -> dict[str, Any]:
        """What lm-eval finds on a task that was loaded, and `notes` that a reader of it must know.

        Raises InputError if it cannot be evaluated.
        """
        self._model.cut = 0
        told = told_as_input(
            name, "it cannot be evaluated", f"{LEAVE}, or correct that and {AGAIN}"
        )
        with self._quiet(), told, self._metrics(name), self._patterns(name):
            found = self._evaluate(self.loaded[name])
        if self._model.cut:
            cut = f"{self._model.cut} answers had room for {self._model.max_length // 2} tokens, half of what the model sees at once"
            found["notes"] = [f"lm-eval task {name!r}: {cut}; the task allows more."]
        return found

    def _metrics(self, name: str) -> AbstractContextManager[None]:
        return nullcontext() if self._allow_code else no_metrics_from_hubs(name)

    def _patterns(self, name: str) -> AbstractContextManager[None]:
        return (
            nullcontext() if self._allow_code or task_file(name) is None else patterns.bounded(name)
        )

    def _evaluate(self, loaded: Any) -> dict[str, Any]:
        random.seed(self._seed)
        np.random.seed(self._seed)
        torch.manual_seed(self._seed)
        for task in loaded["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=self._seed)
        found = evaluate(
            lm=self._model, task_dict=loaded, limit=self._limit, bootstrap_iters=BOOTSTRAP
        )
        return {key: found[key] for key in (*KEPT, "samples") if key in found}

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Progress bars go to a log in the scratch folder."""
        with (
            (self._folder / "lm_eval.log").open("a", encoding="utf-8") as log,
            redirect_stderr(log),
        ):
            yield


@contextmanager
def told_as_input(name: str, why: str, fix: str) -> Iterator[None]:
    """What tasks, their data sets and metrics raise inside, which may be anything, becomes an InputError.

    What our own code raised goes through as it is: our wish to stop, and our mistakes.
    """
    try:
        yield
    except GroundupError:
        raise
    except Exception as error:
        *_, (raised_in, _) = walk_tb(error.__traceback__)
        if raised_in.f_globals.get("__name__", "").startswith(OURS):
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())[:600]
        raise InputError(f"lm-eval task {name!r}", f"{why}: {said}", fix) from error


@contextmanager
def no_metrics_from_hubs(name: str) -> Iterator[None]:
    """The library evaluate fetches Python and runs it, for any metric that lm-eval does not have itself; not inside.

    Raises:
        InputError: A metric was asked for, also if lm-eval went on without it.
    """
    refused: list[InputError] = []
    before = metric_loading.evaluation_module_factory

    def refuse(path: str, *_: Any, **__: Any) -> NoReturn:
        why = f"its metric {path!r} is code that the library evaluate fetches from a hub and runs"
        refused.append(
            InputError(f"lm-eval task {name!r}", why, f"{LEAVE}, or set evaluate.allow_code=true")
        )
        raise refused[0]

    metric_loading.evaluation_module_factory = refuse
    try:
        yield
    finally:
        metric_loading.evaluation_module_factory = before
        if refused:
            raise refused[0]


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
    """One row per task or group and metric. One with a log-likelihood that is no number has no value: lm-eval would make a 0 or 1 of it."""
    for task, results in found["results"].items():
        samples = [sample for leaf in leaves(found, task) for sample in found["samples"][leaf]]
        broken = sum(not all(map(math.isfinite, likelihoods(sample))) for sample in samples)
        n = results.get("sample_len", 0)
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


def leaves(found: dict[str, Any], task: str) -> list[str]:
    """The tasks of a group, and of the groups in it; a task is its own."""
    members = found["group_subtasks"].get(task)
    return (
        [task]
        if members is None
        else [leaf for member in members for leaf in leaves(found, member)]
    )


def pooled(found: dict[str, Any]) -> dict[str, Any]:
    """Accuracy on the items of all tasks together: more items, so a smaller standard error."""
    samples = [sample for task in found["samples"].values() for sample in task]
    row = {
        "task": POOLED,
        "metric": "acc",
        "n": 0,
        "baseline": _chance(samples),
        "baseline_name": "chance",
        "higher_is_better": True,
    }
    n = len(samples)
    if not all(math.isfinite(value) for sample in samples for value in likelihoods(sample)):
        return row
    share = sum(sample["acc"] for sample in samples) / n
    return row | {
        "value": share,
        "n": n,
        "stderr": math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else None,
    }


def sample_rows(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per item, though lm-eval has one per filter; items whose log-likelihoods are no numbers are left out."""
    for task, samples in found["samples"].items():
        for sample in samples:
            values = likelihoods(sample)
            if sample["filter"] != samples[0]["filter"] or not all(map(math.isfinite, values)):
                continue
            answer = (
                sample["target"] if isinstance(sample["target"], int) and len(values) > 1 else None
            )
            predicted = int(np.argmax(values)) if answer is not None else None
            yield {
                "task": task, "item": str(sample["doc"].get("id", sample["doc_id"])), "answer": answer, "predicted": predicted,
                "loglikelihoods": values, "correct": predicted == answer if answer is not None else None,
            }  # fmt: skip


def likelihoods(sample: dict[str, Any]) -> list[float]:
    """Log-likelihood of each choice, in nats; empty for tasks that generate text."""
    pairs = [
        response
        for response in sample["filtered_resps"]
        if isinstance(response, tuple | list) and len(response) == 2
    ]
    return [
        float(value) for value, _ in pairs if not isinstance(value, str)
    ]  # two texts: a task that draws two answers


def merge(found: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """lm-eval's results together, without samples, and without the place where they were made."""
    merged: dict[str, Any] = {key: {} for key in KEPT}
    for result in found:
        for key in KEPT:
            merged[key] |= result.get(key, {})
    merged["lm_eval"], merged["transformers"] = version("lm_eval"), version("transformers")
    place = json.dumps(str(folder.resolve()))[1:-1]  # as JSON spells it
    return json.loads(json.dumps(merged, default=str).replace(place, "."))


def _chance(samples: list[dict[str, Any]]) -> float | None:
    counts = [len(likelihoods(sample)) for sample in samples]
    return sum(1 / count for count in counts) / len(counts) if counts and min(counts) > 1 else None


def _number(value: Any) -> float | None:
    """lm-eval writes "N/A" for what it cannot tell."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
