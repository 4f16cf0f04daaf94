"""Replays pretraining text among the conversations (Ibrahim et al. 2024, arXiv 2403.08763).

Otherwise the model would forget it. The first rows of a batch hold conversations; the others are
windows of the token stream, in which every token counts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_contracts import Artifact, ConfigError
from stages.lm.checkpoint import check_tokenizer
from stages.lm.training.batches import Batch, TokenStream, Windows
from stages.sft.packing import PackedChats


class WithReplay:
    """Batches of conversations and of windows of a token stream.

    Args:
        chats: The conversations, in batches of `batch_size` less the rows of `windows`.
        windows: The windows, in batches of the rows to replay.
        batch_size: Rows of a batch of both.
    """

    def __init__(self, chats: PackedChats, windows: Windows, batch_size: int):
        self._chats = chats
        self._windows = windows
        self._chat_rows = batch_size - windows.batch_size
        # An epoch is one of the conversations.
        self.rows_per_epoch = chats.rows_per_epoch * batch_size // self._chat_rows

    @property
    def tokens_per_row(self) -> float:
        """Mean number of tokens of a row. Windows are full, rows of conversations are not."""
        windows = self._windows
        chat_tokens = self._chats.tokens_per_row * self._chat_rows
        window_tokens = windows.context * windows.batch_size
        return (chat_tokens + window_tokens) / (self._chat_rows + windows.batch_size)

    def rows(self, step: int, first: int, count: int) -> Batch:
        chat_count = min(max(self._chat_rows - first, 0), count)
        parts: list[Batch] = []
        if chat_count:
            parts.append(self._chats.rows(step, first, chat_count))
        if chat_count < count:
            first_window = max(first - self._chat_rows, 0)
            window = self._windows.rows(step, first_window, count - chat_count)
            parts.append({**window, "segments": torch.ones_like(window["ids"])})
        batch: dict[str, Tensor] = {}
        for name in parts[0]:
            batch[name] = torch.cat([part[name] for part in parts])
        return batch

    def documents(self, step: int) -> list[str]:
        return sorted({*self._chats.documents(step), *self._windows.documents(step)})


def replayed_rows(share: float, batch_size: int) -> int:
    """Return the number of rows of a batch to replay: at least one, but not all; 0 if `share` is 0.

    Args:
        share: The setting `replay`.
        batch_size: Rows of a batch.
    """
    if not share:
        return 0
    return int(np.clip(round(share * batch_size), 1, batch_size - 1))


def windows(
    share: float,
    rows: int,
    token_shards: Artifact | None,
    checkpoint: Artifact,
    scratch: Path,
    context: int,
    seed: int,
) -> Windows:
    """Return the pretraining text to replay, in batches of `rows` windows.

    Args:
        share: The setting `replay`, for the error message.
        rows: Windows of a batch.
        token_shards: The pretraining text.
        checkpoint: The checkpoint to train, whose tokenizer the shards must have.
        scratch: Folder for the token stream.
        context: Tokens of a window.
        seed: Determines the order.

    Raises:
        ConfigError: There are no token shards.
        ArtifactError: The token shards were made with another tokenizer.
    """
    if token_shards is None:
        raise ConfigError(
            "sft.replay",
            f"{share} of the rows are to be pretraining text, and there is none",
            "add token_shards=NAME/token_shards",
        )
    vocab_size = check_tokenizer(token_shards, checkpoint)
    stream = TokenStream.open(token_shards, "train", scratch / "tokens", vocab_size)
    return Windows(stream, context, rows, seed)
