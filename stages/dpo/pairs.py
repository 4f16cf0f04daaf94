"""Batches of preference pairs, with the log-probabilities that the frozen reference gives them.

Costs 8 bytes of memory per token of both answers. Shapes: B pairs, 2 answers (chosen, rejected),
T tokens of the longest answer in the batch, R pairs in all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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

AT_ONCE = 512  # pairs that are read together
COLUMNS = ["id", "prompt", "chosen", "rejected", "split"]


@dataclass(frozen=True)
class Pair:
    """One preference pair.

    Attributes:
        name: Id of the pair.
        chosen: Tokens that the model reads with the chosen answer, and the token that follows each
            (IGNORED before the answer). Both int32.
        rejected: The same with the rejected answer.
    """

    name: str
    chosen: tuple[np.ndarray, np.ndarray]
    rejected: tuple[np.ndarray, np.ndarray]

    @property
    def lengths(self) -> tuple[int, int]:
        """Return the tokens of each side, prompt included."""
        return len(self.chosen[0]), len(self.rejected[0])


def read(
    preferences: Artifact, chat: ChatFormat, context: int, rejected: Counter[str]
) -> dict[str, list[Pair]]:
    """Read all pairs.

    Args:
        preferences: The artifact.
        chat: Encodes prompts and answers.
        context: Largest number of tokens of a prompt with its answer.
        rejected: Receives the number of rejected pairs by reason.

    Returns:
        The pairs by split.
    """
    found: dict[str, list[Pair]] = {"train": [], "heldout": []}
    batches = preferences.batches("pairs", COLUMNS, batch_size=AT_ONCE)
    for batch in batches:
        for row in batch.to_pylist():
            pair, reason = _pair(row, chat, context)
            if pair is None:
                rejected[reason] += 1
            else:
                found[row["split"]].append(pair)
    return found


def _pair(row: dict[str, Any], chat: ChatFormat, context: int) -> tuple[Pair | None, str]:
    """Return the pair of a row, or None and the reason of rejection."""
    conversations = []
    for side in ("chosen", "rejected"):
        answer = {"role": "assistant", "content": row[side]}
        conversations.append([*row["prompt"], answer])
    if any(map(chat.special_token_in, conversations)):
        return None, "special_token_in_text"
    prompt_tokens = len(chat.prompts([row["prompt"]])[0])
    sides = []
    for encoded in chat.encode(conversations):
        ids, labels = encoded.shifted(IGNORED)
        labels[: prompt_tokens - 1] = IGNORED  # earlier answers of the conversation do not count
        sides.append((ids, labels))
    pair = Pair(row["id"], sides[0], sides[1])
    if max(pair.lengths) > context:
        return None, "too_long"
    if all(map(np.array_equal, pair.chosen, pair.rejected)):
        return None, "equal"
    return pair, ""


class PairBatches:
    """Batches of pairs, each epoch in another random order.

    A batch is {"ids": [B, 2, T], "labels": [B, 2, T], "lengths": [B, 2], "reference": [B, 2]}.

    Args:
        pairs: The pairs.
        batch_size: B.
        seed: Determines the order.
        pad: Id of the padding token.
    """

    def __init__(self, pairs: Sequence[Pair], batch_size: int, seed: int, pad: int):
        self._pairs = pairs
        self._batch_size = batch_size
        self._seed = seed
        self._pad = pad
        self.rows_per_epoch = len(pairs)
        self.reference_R2 = torch.zeros(len(pairs), 2)

    @property
    def tokens_per_row(self) -> float:
        """Mean number of tokens of a pair, both answers together."""
        total = 0
        for pair in self._pairs:
            total += sum(pair.lengths)
        return total / max(1, len(self._pairs))

    def at(self, numbers: Sequence[int]) -> Batch:
        """Return the pairs with these numbers, padded to the longest answer among them.

        Args:
            numbers: Numbers of pairs.
        """
        pairs = [self._pairs[number] for number in numbers]
        lengths_B2 = torch.tensor([pair.lengths for pair in pairs])
        shape = (len(pairs), 2, int(lengths_B2.max()))
        ids_B2T = torch.full(shape, self._pad)
        labels_B2T = torch.full(shape, IGNORED)
        for row, pair in enumerate(pairs):
            for side, (ids, labels) in enumerate((pair.chosen, pair.rejected)):
                ids_B2T[row, side, : len(ids)] = torch.from_numpy(ids)
                labels_B2T[row, side, : len(labels)] = torch.from_numpy(labels)
        return {
            "ids": ids_B2T,
            "labels": labels_B2T,
            "lengths": lengths_B2,
            "reference": self.reference_R2[list(numbers)],
        }

    def rows(self, step: int, first: int, count: int) -> Batch:
        return self.at(self._visited(step, first, count))

    def documents(self, step: int) -> list[str]:
        names: set[str] = set()
        for number in self._visited(step, 0, self._batch_size):
            names.add(self._pairs[number].name)
        return sorted(names)

    def _visited(self, step: int, first: int, count: int) -> list[int]:
        first_visit = step * self._batch_size + first
        _, numbers = visits(first_visit, count, self.rows_per_epoch, self._seed)
        return numbers.tolist()

    @torch.no_grad()
    def remember_reference(self, model: LanguageModel, rows_at_once: int, report: Report) -> None:
        """Compute the log-probabilities under the model as it is now, which is the reference.

        So no second model is kept in memory during the training.

        Args:
            model: The model before its first step.
            rows_at_once: Pairs of one forward pass.
            report: Receives progress.
        """
        device = model.head_weight.device
        count = len(self._pairs)
        for start in range(0, count, rows_at_once):
            end = min(start + rows_at_once, count)
            batch = self.at(range(start, end))
            logprobs_B2 = self.logprobs(model, batch, device)
            self.reference_R2[start:end] = logprobs_B2.cpu()
            report.progress(end, count, "reference pairs")

    @staticmethod
    def logprobs(model: LanguageModel, batch: Batch, device: torch.device) -> Tensor:
        """Return the log-probability of each answer.

        Args:
            model: The model.
            batch: As `at` gives it.
            device: The device that the model is on.

        Returns:
            [B, 2] in float32, in nats.
        """
        on_device: dict[str, Tensor] = {}
        for name, tensor in batch.items():
            on_device[name] = tensor.to(device)
        return answer_logprobs(model, on_device).float()
