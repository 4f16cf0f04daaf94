"""Which conversations are answered again: first those that sft did not train on."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from data_contracts import Artifact
from stages.digests import seed_for


@dataclass(frozen=True)
class Asked:
    """A conversation up to the last question, the human answer to it, and which split its pair belongs to."""

    conversation: str
    prompt: list[dict[str, str]]
    answer: str
    split: str


def choose(
    conversations: Artifact, count: int, kinds: Collection[str], heldout_share: float, seed: int
) -> list[Asked]:
    """At most `count` conversations by hash: those held out of sft, and where they are too few, others.

    Pairs of the held-out split come only from conversations that sft did not see: a share of them, by hash.
    Memory: `count` conversations.
    """
    best = heapq.nsmallest(count, _ranked(conversations, kinds, seed), key=lambda one: one[0])
    asked = []
    for (seen, _, _), row in best:
        held = not seen and seed_for(seed, "heldout", row["id"]) < heldout_share * 2**63
        asked.append(
            Asked(
                row["id"],
                row["messages"][:-1],
                row["messages"][-1]["content"],
                "heldout" if held else "train",
            )
        )
    return asked


def _ranked(
    conversations: Artifact, kinds: Collection[str], seed: int
) -> Iterator[tuple[tuple[bool, int, str], dict[str, Any]]]:
    for batch in conversations.batches(
        "conversations", ["id", "messages", "kind", "split", "document"]
    ):
        for row in batch.to_pylist():
            if not kinds or row["kind"] in kinds:
                yield (row["split"] == "train", seed_for(seed, "prompt", row["id"]), row["id"]), row
