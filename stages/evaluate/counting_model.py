"""The model as lm-eval sees it: it counts sequences and bounds the length of answers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

# the names under which a task may set the length of an answer
ANSWER_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class CountingModel(HFLM):
    """A model that counts the sequences it has read, and those that lm-eval has requested.

    An answer takes at most half of the context. The question needs the other half, and lm-eval
    stops with an error where nothing is left for it.

    Attributes:
        seen: Sequences read so far.
        total: Sequences requested so far.
        cut: Requests for an answer longer than half of the context.
        on_progress: Called with `seen` and `total` at each batch.
    """

    seen = total = 0
    cut = 0
    on_progress: Callable[[int, int], None] | None = None

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], *args: Any, **settings: Any
    ) -> Any:
        # choices of one item that differ only in their last token are one sequence
        distinct = {(*context, *choice[:-1]) for _, context, choice in requests}
        self.total = self.seen + len(distinct)
        return super()._loglikelihood_tokens(requests, *args, **settings)

    def _model_call(self, inps: torch.Tensor, *args: Any, **settings: Any) -> torch.Tensor:
        self._count(inps)
        return super()._model_call(inps, *args, **settings)

    def _model_generate(self, context: torch.Tensor, *args: Any, **settings: Any) -> torch.Tensor:
        self._count(context)
        return super()._model_generate(context, *args, **settings)

    def _count(self, batch: torch.Tensor) -> None:
        self.seen += len(batch)
        if self.on_progress:
            self.on_progress(self.seen, self.total)

    @property
    def max_gen_toks(self) -> int:
        """The longest answer, in tokens, for tasks that set no length."""
        return min(super().max_gen_toks, self.max_length // 2)

    def generate_until(self, requests: list[Any], *args: Any, **settings: Any) -> Any:
        self.total = self.seen + len(requests)
        bounded = [self._with_bounded_answer(request) for request in requests]
        return super().generate_until(bounded, *args, **settings)

    def _with_bounded_answer(self, request: Any) -> Any:
        prompt, settings = request.args
        max_answer = self.max_length // 2
        bounds = dict.fromkeys(ANSWER_TOKENS, max_answer) | {"max_length": self.max_length}
        try:
            given = {name: int(settings[name]) for name in bounds if settings.get(name) is not None}
        except (AttributeError, TypeError, ValueError, OverflowError):
            return request  # lm-eval refuses it and says why
        lengths = [given[name] for name in ANSWER_TOKENS if name in given]
        length = lengths[0] if lengths else super().max_gen_toks
        if length > max_answer:
            self.cut += 1
        bounded = {name: min(value, bounds[name]) for name, value in given.items()}
        changed = copy.copy(request)  # the samples show the settings of the task
        changed.arguments = (prompt, settings | bounded)
        return changed
