"""Loss and bits per byte on held-out documents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_contracts import Artifact, InputError
from stages.lm.loss import IGNORED, token_loss
from stages.lm.model import LanguageModel

TOKENS_AT_ONCE = 8192
ROWS_AT_ONCE = 256  # rows of the table that are read together


@dataclass(frozen=True)
class Heldout:
    """Rows of the held-out table, one after another.

    Attributes:
        tokens: [tokens], int64.
        bytes: UTF-8 bytes of the text that the tokens encode.
    """

    tokens: Tensor
    bytes: int

    @classmethod
    def read(cls, token_shards: Artifact, max_tokens: int) -> Heldout:
        """Read the first rows. pack has shuffled them.

        Args:
            token_shards: The artifact.
            max_tokens: Where to stop; at least one row is read.

        Raises:
            InputError: There are too few tokens to compute a loss.
        """
        rows: list[Tensor] = []
        token_count = 0
        byte_count = 0
        for tokens, row_bytes in _rows(token_shards):
            if rows and token_count + len(tokens) > max_tokens:
                break
            rows.append(torch.from_numpy(tokens.astype("int64")))
            token_count += len(tokens)
            byte_count += row_bytes
        if token_count < 2:
            raise InputError(
                f"{token_shards}.heldout",
                f"holds {token_count} tokens: nothing to measure the loss on",
                "hold out more documents",
            )
        return cls(torch.cat(rows), byte_count)

    def score(self, model: LanguageModel) -> dict[str, float]:
        """Compute `heldout_loss` in nats per token, and `heldout_bits_per_byte`.

        Every token but the first is predicted once, in windows that do not overlap. A token at the
        start of a window sees few others, which makes both figures slightly worse. End-of-text
        tokens cost bits but encode no bytes.

        Args:
            model: The model, in evaluation mode.
        """
        context = model.config.context
        device = model.head_weight.device
        count = len(self.tokens) - 1
        windows = math.ceil(count / context)
        padded = torch.full((windows * context + 1,), IGNORED)
        padded[: count + 1] = self.tokens
        ids = padded[:-1].view(windows, context).clamp(min=0)
        labels = padded[1:].view(windows, context)
        rows = max(1, TOKENS_AT_ONCE // context)
        nats = 0.0
        for ids_BT, labels_BT in zip(ids.split(rows), labels.split(rows), strict=True):
            nats += _summed_loss(model, ids_BT.to(device), labels_BT.to(device))
        return {
            "heldout_loss": nats / count,
            "heldout_bits_per_byte": nats / math.log(2) / max(1, self.bytes),
        }


def _rows(token_shards: Artifact) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the tokens and bytes of each held-out row."""
    batches = token_shards.batches("heldout", ["tokens", "bytes"], batch_size=ROWS_AT_ONCE)
    for batch in batches:
        sizes = batch.column("bytes").to_pylist()
        for tokens, size in zip(batch.column("tokens"), sizes, strict=True):
            yield tokens.values.to_numpy(), size


def _summed_loss(model: LanguageModel, ids_BT: Tensor, labels_BT: Tensor) -> float:
    def head(hidden_BTD: Tensor, weight_VD: Tensor) -> Tensor:
        return token_loss(hidden_BTD, weight_VD, labels_BT)[1]

    return float(model(ids_BT, head))
