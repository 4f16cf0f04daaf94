"""lm-eval on a model in memory: nothing is cached, and no hub is asked unless a task needs one."""

from __future__ import annotations

import difflib
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from data_contracts import ConfigError, InputError
from data_contracts.foreign_text import listed
from stages.evaluate import groups, patterns, task_files
from stages.evaluate.config import EvaluateConfig, task_file
from stages.evaluate.counting_model import CountingModel
from stages.evaluate.isolation import LEAVE_OUT, errors_as_input, no_metrics_from_hubs, offline
from stages.evaluate.results import KEPT
from stages.evaluate.tasks import RESERVED

# lm-eval computes the standard error of a mean exactly; it bootstraps that of other aggregations
BOOTSTRAP = 1000
ASK_AGAIN = "ask again: groundup stage evaluate --name NAME --as-of DATE"


class Harness:
    """lm-eval for one model, on the rendered tasks of a folder and on further tasks.

    Attributes:
        loaded: The further tasks that were loaded, by the name in `evaluate.tasks`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        folder: Path,
        names: list[str],
        length: int,
        config: EvaluateConfig,
        on_progress: Callable[[int, int], None],
    ):
        """
        Args:
            model: A causal language model of transformers.
            tokenizer: Its tokenizer.
            folder: Where the rendered tasks are; lm-eval's log goes there, too.
            names: The rendered tasks.
            length: Tokens that the model sees at once.
            config: The settings of the stage.
            on_progress: Called at each batch with the sequences that the model has read and those
                that were requested. Each further task raises both.
        """
        for name in ("lm_eval", "datasets"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._folder, self._names, self._config = folder, names, config
        # the name of a score → what it belongs to
        self._owners = dict.fromkeys(names, "eval_items") | dict.fromkeys(RESERVED, "evaluate")
        self.loaded: dict[str, Any] = {}
        with self._quiet():
            self._model = CountingModel(
                pretrained=model,
                tokenizer=tokenizer,
                batch_size=config.batch_size,
                max_length=length,
            )
        self._model.on_progress = on_progress

    @cached_property
    def _library(self) -> TaskManager:
        return TaskManager()  # reads about 14,000 task files, which takes 10 seconds

    def local(self) -> dict[str, Any]:
        """Evaluate the rendered tasks. No hub is asked, whatever the environment says."""
        manager = TaskManager(include_path=str(self._folder), include_defaults=False)
        with offline(), self._quiet():
            return self._evaluate(manager.load(self._names))

    def check(self, names: list[str]) -> None:
        """Check the names of further tasks before any of them is loaded.

        Raises:
            ConfigError: A name is not a task, group or tag of lm-eval (the message suggests the
                nearest), a group in a file contains such a name, or a task file would run code
                although `allow_code` is not set.
        """
        paths = [task_file(name) for name in names]
        files = [path for path in paths if path is not None]
        if not self._config.allow_code:
            for file in files:
                task_files.check(file)
        in_library = [name for name, path in zip(names, paths, strict=True) if path is None]
        unknown = [name for name in in_library if name not in self._library.task_index]
        if unknown:
            raise self._no_such_tasks(unknown)
        for file in files:
            self._check_group(file)

    def _no_such_tasks(self, unknown: list[str]) -> ConfigError:
        near: list[str] = []
        for name in unknown:
            near += difflib.get_close_matches(name, self._library.all_tasks, n=1, cutoff=0.5)
        fix = "lm-eval ls tasks shows all"
        if near:
            fix = f"did you mean {', '.join(map(repr, near))}?"
        what = f"evaluate.tasks {', '.join(map(repr, unknown))}"
        return ConfigError(what, "lm-eval has no task of that name", fix)

    def _check_group(self, file: Path) -> None:
        if not groups.is_group(file):
            return
        missing = groups.absent(file, self._library.task_index)
        if missing:
            why = f"its group names {listed(missing)}, and lm-eval has no task of that name"
            fix = (
                "correct the file; lm-eval ls tasks shows all names, "
                "and a group does not find other files"
            )
            raise ConfigError(f"evaluate.tasks {file}", why, fix)

    def load(self, name: str) -> None:
        """Read a further task and its data.

        Raises:
            InputError: They cannot be loaded, or the task would run what the model writes, or
                code from a hub although `allow_code` is not set.
            ConfigError: Another task already has a score of the same name.
        """
        self._claim(name, [name])
        why, fix = (
            "it or its data could not be loaded",
            f"{LEAVE_OUT}, or go online and {ASK_AGAIN}",
        )
        with self._quiet(), errors_as_input(name, why, fix), self._metrics(name):
            loaded = self._library.load([str(task_file(name) or name)])
        if any(getattr(task, "UNSAFE_CODE", False) for task in loaded["tasks"].values()):
            why = "it runs the code that the model writes, which this stage never does"
            raise InputError(f"lm-eval task {name!r}", why, LEAVE_OUT)
        self._claim(name, [*loaded["groups"], *loaded["tasks"]])
        self.loaded[name] = loaded

    def _claim(self, name: str, scores: list[str]) -> None:
        for score in scores:
            owner = self._owners.setdefault(score, name)
            if owner != name:
                why = f"{score!r} would be scored twice: it is a score of {owner!r}"
                fix = (
                    f"leave {name!r} or {owner!r} out, "
                    "or rename the task file or the benchmark file"
                )
                raise ConfigError(f"evaluate.tasks {name!r}", why, fix)

    def further(self, name: str) -> dict[str, Any]:
        """Evaluate a task that was loaded.

        Returns:
            What lm-eval found, and under "notes", if anything, what a reader of it must know.

        Raises:
            InputError: The task cannot be evaluated.
        """
        self._model.cut = 0
        why, fix = "it cannot be evaluated", f"{LEAVE_OUT}, or correct that and {ASK_AGAIN}"
        with (
            self._quiet(),
            errors_as_input(name, why, fix),
            self._metrics(name),
            self._patterns(name),
        ):
            found = self._evaluate(self.loaded[name])
        if self._model.cut:
            found["notes"] = [
                f"lm-eval task {name!r}: {self._model.cut} answers were limited to "
                f"{self._model.max_length // 2} tokens, half of what the model sees at once; "
                "the task allows more."
            ]
        return found

    def _metrics(self, name: str) -> AbstractContextManager[None]:
        return nullcontext() if self._config.allow_code else no_metrics_from_hubs(name)

    def _patterns(self, name: str) -> AbstractContextManager[None]:
        if self._config.allow_code or task_file(name) is None:
            return nullcontext()
        return patterns.bounded(name)

    def _evaluate(self, loaded: Any) -> dict[str, Any]:
        seed = self._config.seed
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        for task in loaded["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=seed)
        found = evaluate(
            lm=self._model,
            task_dict=loaded,
            limit=self._config.limit,
            bootstrap_iters=BOOTSTRAP,
        )
        return {key: found[key] for key in (*KEPT, "samples") if key in found}

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Send progress bars to a log in the folder."""
        log_path = self._folder / "lm_eval.log"
        with log_path.open("a", encoding="utf-8") as log, redirect_stderr(log):
            yield
