"""Loss and bits per byte on held-out documents."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from data_contracts import Artifact, InputError
from stages.lm.loss import IGNORED, token_loss
from stages.lm.model import LanguageModel

TOKENS_AT_ONCE = 8192


@dataclass(frozen=True)
class Heldout:
    """Whole rows of the held-out table, one after another. bytes: UTF-8 bytes of the text that they stand for."""

    tokens: torch.Tensor
    bytes: int

    @classmethod
    def read(cls, token_shards: Artifact, most_tokens: int) -> Heldout:
        """The first rows (pack has shuffled them), up to `most_tokens` tokens but at least one row.

        Raises InputError if there are none.
        """
        rows: list[torch.Tensor] = []
        count = size = 0
        for batch in token_shards.batches("heldout", ["tokens", "bytes"], batch_size=256):
            for tokens, row_bytes in zip(
                batch.column("tokens"), batch.column("bytes").to_pylist(), strict=True
            ):
                if rows and count + len(tokens) > most_tokens:
                    return cls(torch.cat(rows), size)
                rows.append(torch.from_numpy(tokens.values.to_numpy().astype("int64")))
                count += len(tokens)
                size += row_bytes
        if count < 2:
            raise InputError(
                f"{token_shards}.heldout",
                f"holds {count} tokens: nothing to measure the loss on",
                "hold out more documents",
            )
        return cls(torch.cat(rows), size)

    def score(self, model: LanguageModel) -> dict[str, float]:
        """{"heldout_loss": nats per token, "heldout_bits_per_byte": bits per UTF-8 byte}.

        Every token but the first is predicted once, in windows that do not overlap: a token at the start of a window sees little,
        which is to the model's disadvantage. End-of-text tokens cost bits and stand for no bytes.
        """
        context, device = model.config.context, model.head_weight.device
        count = len(self.tokens) - 1
        windows = math.ceil(count / context)
        padded = torch.full((windows * context + 1,), IGNORED)
        padded[: count + 1] = self.tokens
        ids, labels = (
            padded[:-1].view(windows, context).clamp(min=0),
            padded[1:].view(windows, context),
        )
        nats = 0.0
        rows = max(1, TOKENS_AT_ONCE // context)
        for some_ids, some_labels in zip(ids.split(rows), labels.split(rows), strict=True):
            wanted = some_labels.to(device)
            nats += float(
                model(
                    some_ids.to(device),
                    lambda hidden, table, y=wanted: token_loss(hidden, table, y)[1],
                )
            )
        return {
            "heldout_loss": nats / count,
            "heldout_bits_per_byte": nats / math.log(2) / max(1, self.bytes),
        }
