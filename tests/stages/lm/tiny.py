"""A model, a tokenizer folder and batches small enough for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from stages.lm.config import ModelConfig
from stages.lm.model import LanguageModel
from stages.lm.training.batches import Batch
from stages.lm.training.config import Compute, Training
from stages.pretrain.stage import next_token_loss
from tests.golden import pretrain as golden

SHAPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, grouped queries, own output table": {"kv_heads": 2, "tied_embeddings": False},
    "qwen3": {"architecture": "qwen3", "kv_heads": 2, "head_width": 16},
    "qwen3 with a sliding window": {"architecture": "qwen3", "kv_heads": 1, "sliding_window": 9},
    "qwen3_moe": {
        "architecture": "qwen3_moe",
        "kv_heads": 2,
        "moe": {"experts": 4, "experts_per_token": 2, "expert_width": 24},
    },
}


def config(**changes: Any) -> ModelConfig:
    sizes = {
        "vocab_size": 97,
        "width": 32,
        "layers": 2,
        "heads": 4,
        "kv_heads": 4,
        "ffn_width": 48,
        "context": 64,
    }
    return ModelConfig(**(sizes | changes))


def model(loud: bool = True, **changes: Any) -> LanguageModel:
    """loud: weights large enough that attention and experts matter to the logits."""
    made = LanguageModel(config(**changes))
    made.initialize(1)
    if loud:
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for weight in made.parameters():
                weight.mul_(5) if weight.ndim == 2 else weight.add_(
                    0.1 * torch.randn(weight.shape, generator=generator)
                )
    return made.eval()


def tokenizer_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in golden.tokenizer_files(golden.train_tokenizer(golden.texts(5))).items():
        (folder / name).write_bytes(data)
    return folder


next_token = next_token_loss(z_loss=0.0)


class Repeated:
    """The same few sequences at every step, so that a model can learn them by heart."""

    def __init__(self, rows: int = 8, context: int = 16, vocab_size: int = 97):
        self.tokens = torch.randint(
            0, vocab_size, (rows, context + 1), generator=torch.Generator().manual_seed(3)
        )
        self.rows_per_epoch = rows

    def rows(self, step: int, first: int, count: int) -> Batch:
        tokens = self.tokens[first : first + count]
        return {"ids": tokens[:, :-1], "labels": tokens[:, 1:]}

    def documents(self, step: int) -> list[str]:
        return [f"document {step}"]


def training(**changes: Any) -> Training:
    return Training.model_validate(
        {"batch_size": 8, "log_every": 1, "learning_rate": 0.01} | changes
    )


def compute(**changes: Any) -> Compute:
    return Compute.model_validate(
        {"threads": 1, "precision": "float32", "compile": "off"} | changes
    )
