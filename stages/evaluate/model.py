"""Loads the model to evaluate, in the classes of transformers."""

from __future__ import annotations

from typing import Any

import torch

from data_contracts import ConfigError
from stages.lm import transformers_model
from stages.lm.tokenizer import ModelTokenizer


def load(tokenizer: ModelTokenizer, device: str) -> tuple[Any, Any]:
    """Return the model in float32, on the device, and its tokenizer, both in transformers' classes.

    Args:
        tokenizer: The tokenizer of the checkpoint, beside the model.
        device: The setting `device`.

    Raises:
        ConfigError: There is no such device.
        ArtifactError: The folder is not a checkpoint.
    """
    chosen = device_name(device)
    model, fast = transformers_model.load(tokenizer.folder, tokenizer)
    return model.to(chosen), fast


def device_name(device: str) -> str:
    """Return the device that the setting `device` means.

    Raises:
        ConfigError: There is no such device.
    """
    cards = torch.cuda.device_count()
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= cards:
        raise ConfigError(
            f"evaluate.device = {device!r}",
            f"PyTorch sees {cards} CUDA devices here",
            "--set device=auto takes what there is",
        )
    if device != "auto":
        return device
    return "cuda" if cards else "cpu"
