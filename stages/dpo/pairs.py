"""Preference pairs as batches: both answers of a pair, with the log-probabilities that the frozen reference gives them.

Costs 8 bytes of memory per token of both answers. Shapes: B pairs, 2 answers (chosen, rejected), T tokens of the longest in the batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_contracts import Artifact
from stages.dpo.loss import answer_logprobs
from stages.lm.chat import ChatFormat
from stages.lm.loss import IGNORED
from stages.lm.model import LanguageModel
from stages.lm.training.batches import Batch, visits
from stages.report import Report

AT_ONCE = 512  # pairs tokenized together


@dataclass(frozen=True)
class Pair:
    """Tokens read and tokens wanted after each, of the chosen and of the rejected answer."""

    name: str
    chosen: tuple[np.ndarray, np.ndarray]
    rejected: tuple[np.ndarray, np.ndarray]


def read(
    preferences: Artifact, chat: ChatFormat, context: int, rejected: Counter[str]
) -> dict[str, list[Pair]]:
    """Pairs by split; those that do not fit the context or spell out a special token are counted in `rejected`."""
    found: dict[str, list[Pair]] = {"train": [], "heldout": []}
    for batch in preferences.batches(
        "pairs", ["id", "prompt", "chosen", "rejected", "split"], batch_size=AT_ONCE
    ):
        for row in batch.to_pylist():
            whole = [
                [*row["prompt"], {"role": "assistant", "content": row[side]}]
                for side in ("chosen", "rejected")
            ]
            if any(chat.forged(messages) for messages in whole):
                rejected["special_token_in_text"] += 1
                continue
            asked = len(chat.prompts([row["prompt"]])[0])
            sides = []
            for encoded in chat.encode(whole):
                taken, wanted = encoded.shifted(IGNORED)
                wanted[: asked - 1] = IGNORED  # the answer in question counts, not earlier ones
                sides.append((taken, wanted))
            if max(len(taken) for taken, _ in sides) > context:
                rejected["too_long"] += 1
            elif all(map(np.array_equal, *sides)):
                rejected["equal"] += 1
            else:
                found[row["split"]].append(Pair(row["id"], sides[0], sides[1]))
    return found


class PairBatches:
    """{"ids": [B, 2, T], "labels": [B, 2, T], "lengths": [B, 2], "reference": [B, 2]}; each epoch in an order of its own."""

    def __init__(self, pairs: Sequence[Pair], batch_rows: int, seed: int, pad: int):
        self._pairs, self._batch_rows, self._seed, self._pad = pairs, batch_rows, seed, pad
        self.rows_per_epoch = len(pairs)
        self.reference_R2 = torch.zeros(len(pairs), 2)

    @property
    def tokens_per_row(self) -> float:
        return sum(len(pair.chosen[0]) + len(pair.rejected[0]) for pair in self._pairs) / max(
            1, len(self._pairs)
        )

    def at(self, numbers: Sequence[int]) -> Batch:
        """These pairs, padded to the longest answer among them."""
        pairs = [self._pairs[number] for number in numbers]
        longest = max(len(side[0]) for pair in pairs for side in (pair.chosen, pair.rejected))
        ids, labels = (
            torch.full((len(pairs), 2, longest), self._pad),
            torch.full((len(pairs), 2, longest), IGNORED),
        )
        for row, pair in enumerate(pairs):
            for place, (taken, wanted) in enumerate((pair.chosen, pair.rejected)):
                ids[row, place, : len(taken)] = torch.from_numpy(taken)
                labels[row, place, : len(wanted)] = torch.from_numpy(wanted)
        lengths = torch.tensor([[len(pair.chosen[0]), len(pair.rejected[0])] for pair in pairs])
        return {
            "ids": ids,
            "labels": labels,
            "lengths": lengths,
            "reference": self.reference_R2[list(numbers)],
        }

    def rows(self, step: int, first: int, count: int) -> Batch:
        return self.at(self._places(step, first, count))

    def documents(self, step: int) -> list[str]:
        return sorted(
            {self._pairs[number].name for number in self._places(step, 0, self._batch_rows)}
        )

    def _places(self, step: int, first: int, count: int) -> list[int]:
        return visits(step * self._batch_rows + first, count, self.rows_per_epoch, self._seed)[
            1
        ].tolist()

    @torch.no_grad()
    def remember_reference(self, model: LanguageModel, rows_at_once: int, report: Report) -> None:
        """Log-probabilities under the model as it is now: the frozen reference, which need not be kept in memory then."""
        device = model.head_weight.device
        for start in range(0, len(self._pairs), rows_at_once):
            numbers = range(start, min(start + rows_at_once, len(self._pairs)))
            self.reference_R2[start : numbers.stop] = self.logprobs(
                model, self.at(numbers), device
            ).cpu()
            report.progress(numbers.stop, len(self._pairs), "reference pairs")

    @staticmethod
    def logprobs(model: LanguageModel, batch: Batch, device: torch.device) -> Tensor:
        return answer_logprobs(
            model, {name: tensor.to(device) for name, tensor in batch.items()}
        ).float()
