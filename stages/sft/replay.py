"""Rows of pretraining text among the conversations, against forgetting (Ibrahim et al. 2024, arXiv 2403.08763).

Of the R rows of a batch the first hold conversations, the last `replayed` windows of the token stream, whose every token counts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from data_contracts import Artifact, ConfigError
from stages.lm.checkpoint import check_tokenizer
from stages.lm.training.batches import Batch, TokenStream, Windows
from stages.sft.packing import PackedChats


class WithReplay:
    """Batches of `chats`, whose own batch is `replayed` rows smaller than batch_rows, and of windows of a stream."""

    def __init__(self, chats: PackedChats, windows: Windows, batch_rows: int):
        self._chats, self._windows, self._rows_of_chats = (
            chats,
            windows,
            batch_rows - windows.batch_rows,
        )
        self.rows_per_epoch = (
            chats.rows_per_epoch * batch_rows // self._rows_of_chats
        )  # an epoch of the conversations

    @property
    def tokens_per_row(self) -> float:
        """Tokens that a row holds on average: windows are full, rows of conversations are not."""
        windows = self._windows
        read = (
            self._chats.tokens_per_row * self._rows_of_chats + windows.context * windows.batch_rows
        )
        return read / (self._rows_of_chats + windows.batch_rows)

    def rows(self, step: int, first: int, count: int) -> Batch:
        border = min(max(self._rows_of_chats - first, 0), count)
        parts = []
        if border:
            parts.append(self._chats.rows(step, first, border))
        if border < count:
            window = self._windows.rows(step, max(first - self._rows_of_chats, 0), count - border)
            parts.append({**window, "segments": torch.ones_like(window["ids"])})
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def documents(self, step: int) -> list[str]:
        return sorted({*self._chats.documents(step), *self._windows.documents(step)})


def replayed_rows(share: float, batch_rows: int) -> int:
    """How many rows of a batch are replayed: at least one, and at least one is not."""
    return int(np.clip(round(share * batch_rows), 1, batch_rows - 1)) if share else 0


def windows(
    share: float,
    rows: int,
    token_shards: Artifact | None,
    checkpoint: Artifact,
    scratch: Path,
    context: int,
    seed: int,
) -> Windows:
    """`rows` windows a batch. Raises ConfigError without token shards, ArtifactError if they are of another tokenizer."""
    if token_shards is None:
        raise ConfigError(
            "sft.replay",
            f"{share} of the rows are to be pretraining text, and there is none",
            "add token_shards=NAME/token_shards",
        )
    size = check_tokenizer(token_shards, checkpoint)
    return Windows(
        TokenStream.open(token_shards, "train", scratch / "tokens", size), context, rows, seed
    )
