"""Bounds around lm-eval: no hub is asked, no code is fetched, and any error becomes one of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any, NoReturn

import datasets
import huggingface_hub.constants
from evaluate import loading as metric_loading

from data_contracts import GroundupError, InputError

LEAVE_OUT = "leave it out of evaluate.tasks"
OUR_PACKAGES = ("stages.", "flows.", "data_contracts.")
SHOWN_ERROR = 600  # characters


@contextmanager
def errors_as_input(name: str, why: str, fix: str) -> Iterator[None]:
    """Turn whatever a task, its data set or its metric raises into an InputError.

    An error that our own code raised passes unchanged: a request to stop, or a bug of ours.

    Args:
        name: The task.
        why: What could not be done.
        fix: How to repair it.
    """
    try:
        yield
    except GroundupError:
        raise
    except Exception as error:
        *_, (raised_in, _) = walk_tb(error.__traceback__)
        if raised_in.f_globals.get("__name__", "").startswith(OUR_PACKAGES):
            raise
        message = " ".join(f"{type(error).__name__}: {error}".split())[:SHOWN_ERROR]
        raise InputError(f"lm-eval task {name!r}", f"{why}: {message}", fix) from error


@contextmanager
def no_metrics_from_hubs(name: str) -> Iterator[None]:
    """Refuse metrics that the library evaluate would fetch from a hub as Python and run.

    The library does so for every metric that lm-eval does not have itself.

    Raises:
        InputError: The task `name` asked for such a metric, even if lm-eval went on without it.
    """
    refused: list[InputError] = []
    before = metric_loading.evaluation_module_factory

    def refuse(path: str, *_: Any, **__: Any) -> NoReturn:
        why = f"its metric {path!r} is code that the library evaluate fetches from a hub and runs"
        fix = f"{LEAVE_OUT}, or set evaluate.allow_code=true"
        refused.append(InputError(f"lm-eval task {name!r}", why, fix))
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
    """Ask no hub for anything, even if the libraries were imported long before."""
    before = huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
