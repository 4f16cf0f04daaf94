"""Which conversations the model answers: first those that sft did not train on."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from data_contracts import Artifact
from stages.digests import seed_for
from stages.text.heldout import split_of

Rank = tuple[bool, int, str]  # trained on, hash, id


@dataclass(frozen=True)
class AnsweredPrompt:
    """A conversation up to its last question, and the human answer to it.

    Attributes:
        conversation: The id of the conversation.
        prompt: Its messages up to the last question.
        answer: The human answer.
        split: The split of the pair that is made of it: `train` or `heldout`.
    """

    conversation: str
    prompt: list[dict[str, str]]
    answer: str
    split: str

    @property
    def question(self) -> str:
        """The text of the last message before the answer."""
        return self.prompt[-1]["content"]


def choose(
    conversations: Artifact, count: int, kinds: Collection[str], heldout_share: float, seed: int
) -> list[AnsweredPrompt]:
    """Choose conversations by hash: those held out of sft and, if they are too few, others.

    Pairs of the held-out split come only from conversations that sft did not train on.
    Memory: `count` conversations.

    Args:
        conversations: The artifact with a table `conversations`.
        count: How many to choose, at most.
        kinds: Only conversations of these kinds; empty: all.
        heldout_share: Share of the conversations held out of sft whose pairs are held out of dpo.
        seed: The seed of the hashes.
    """
    ranked = _ranked(conversations, kinds, seed)
    chosen = heapq.nsmallest(count, ranked, key=lambda ranked_row: ranked_row[0])
    prompts = []
    for (is_trained_on, _, _), row in chosen:
        split = "train" if is_trained_on else split_of(seed, heldout_share, row["id"])
        *prompt, answer = row["messages"]
        prompts.append(AnsweredPrompt(row["id"], prompt, answer["content"], split))
    return prompts


def _ranked(
    conversations: Artifact, kinds: Collection[str], seed: int
) -> Iterator[tuple[Rank, dict[str, Any]]]:
    """Yield every conversation of the kinds with its rank; the lowest are chosen."""
    columns = ["id", "messages", "kind", "split", "document"]
    for batch in conversations.batches("conversations", columns):
        for row in batch.to_pylist():
            if not kinds or row["kind"] in kinds:
                rank = (row["split"] == "train", seed_for(seed, "prompt", row["id"]), row["id"])
                yield rank, row
