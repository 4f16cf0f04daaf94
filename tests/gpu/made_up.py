"""Artificial models, tokens and batches for the checks. Nothing is read or downloaded.

Shapes: R rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stages.lm.config import ModelConfig
from stages.lm.model import LanguageModel
from stages.lm.training.batches import Batch
from stages.lm.training.config import Compute, Training
from stages.report import Report

DIFFERENT = 8  # batches of Windows before they repeat


def config(**changes: Any) -> ModelConfig:
    """A small model with grouped queries and a separate output table."""
    sizes = {
        "vocab_size": 512,
        "width": 64,
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "ffn_width": 96,
        "context": 128,
        "tied_embeddings": False,
    }
    return ModelConfig(**(sizes | changes))


def medium(**changes: Any) -> ModelConfig:
    """A model of 20 million weights, small enough to compare with a CPU."""
    sizes = {"width": 512, "layers": 6, "heads": 8, "kv_heads": 4, "ffn_width": 1408}
    return config(**(sizes | changes))


def model(sizes: ModelConfig, device: torch.device, loud: bool = False) -> LanguageModel:
    """Make a model with the same weights at every call.

    Args:
        sizes: Sizes of the model.
        device: Where to put it.
        loud: Give matrices a standard deviation of D^-1/2 instead of 0.02, so that queries and keys
            are about as large as their inputs. With initial weights, scores are close to 0, and the
            logits of a narrow model hardly depend on attention.
    """
    made = LanguageModel(sizes)
    made.initialize(1)
    with torch.no_grad():
        for weight in made.parameters():
            if loud and weight.ndim == 2:
                weight.mul_(sizes.width**-0.5 / 0.02)
    return made.to(device)


def tokens(rows: int, length: int, vocab_size: int, seed: int) -> Tensor:
    """[R, T] tokens with the frequencies of words (Zipf), so that there is much to learn."""
    generator = torch.Generator().manual_seed(seed)
    frequency_V = 1.0 / torch.arange(1, vocab_size + 1)
    drawn = torch.multinomial(frequency_V, rows * length, replacement=True, generator=generator)
    return drawn.view(rows, length)


class Windows:
    """Batches for `fit`: {"ids": [R, T], "labels": [R, T]}. They repeat after a few."""

    def __init__(self, sizes: ModelConfig, batch_rows: int):
        self.rows_per_epoch = DIFFERENT * batch_rows
        self._batch_rows = batch_rows
        self._tokens = tokens(self.rows_per_epoch, sizes.context + 1, sizes.vocab_size, seed=2)

    def rows(self, step: int, first: int, count: int) -> Batch:
        """Rows of the batch of `step`."""
        start = step % DIFFERENT * self._batch_rows + first
        found = self._tokens[start : start + count]
        return {"ids": found[:, :-1], "labels": found[:, 1:]}

    def documents(self, step: int) -> list[str]:
        """No documents: the tokens are random."""
        return []


class Listener(Report):
    """Calls a function with the number of finished training steps, and records the notes."""

    def __init__(self, on_step: Callable[[int], None] = lambda done: None):
        self._on_step = on_step
        self.notes: list[str] = []

    def progress(self, done: float, total: float | None, unit: str) -> None:
        """Call the function after a training step."""
        if unit == "steps":
            self._on_step(int(done))

    def note(self, text: str) -> None:
        """Record the note."""
        self.notes.append(text)


def training(**changes: Any) -> Training:
    """Default settings, with every step in the metrics."""
    return Training.model_validate({"log_every": 1, **changes})


def compute(**changes: Any) -> Compute:
    """Default settings, with the current number of threads of this process."""
    return Compute.model_validate({"threads": torch.get_num_threads(), **changes})
