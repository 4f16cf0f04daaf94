"""Turns the compiled form of a model's blocks on and off.

Module.compile() keeps its result in the block's `_compiled_call_impl`. PyTorch has no public way to
remove it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from stages.lm import precision
from stages.lm.model import LanguageModel


def compile_and_run(model: LanguageModel, run_once: Callable[[], None]) -> str:
    """Compile the blocks and run them once, which makes the kernels.

    Args:
        model: The model.
        run_once: Runs its forward and backward pass.

    Returns:
        Why it failed, or "". Then the blocks run uncompiled.

    Raises:
        torch.OutOfMemoryError: The device has too little memory. Uncompiled blocks would need as
            much.
    """
    precision.compile_blocks(model.model.layers)
    try:
        run_once()
    except torch.OutOfMemoryError:
        raise  # it is a RuntimeError, too
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError) as error:
        # Most often there is no working C++ compiler.
        remove_compiled(model)
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return ""


@contextmanager
def uncompiled(model: LanguageModel) -> Iterator[None]:
    """Run the blocks uncompiled in this context.

    An evaluation has other shapes and another mode, for each of which PyTorch would compile anew.

    Args:
        model: The model, compiled or not.
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
