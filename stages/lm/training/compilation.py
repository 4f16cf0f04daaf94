"""Turns the compiled form of a model's blocks on and off.

Module.compile() keeps its result in the block's `_compiled_call_impl`. PyTorch has no public way to
remove it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stages.lm.model import LanguageModel


@contextmanager
def uncompiled(model: LanguageModel) -> Iterator[None]:
    """Run the blocks uncompiled in this context.

    An evaluation has other shapes and another mode, for each of which PyTorch would compile anew.
    """
    compiled = [block._compiled_call_impl for block in model.model.layers]
    remove_compiled(model)
    try:
        yield
    finally:
        _set_compiled(model, compiled)


def remove_compiled(model: LanguageModel) -> None:
    """Make all blocks run uncompiled from now on."""
    _set_compiled(model, [None] * len(model.model.layers))


def _set_compiled(model: LanguageModel, calls: list[Any]) -> None:
    for block, call in zip(model.model.layers, calls, strict=True):
        block._compiled_call_impl = call
