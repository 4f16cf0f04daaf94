"""Writes the tables of the artifact: pairs, each of them once, and rejects."""

from __future__ import annotations

from collections import Counter

from data_contracts import Draft
from stages.collect_preferences.similarity import similarity
from stages.collect_preferences.user_pairs import Turns
from stages.digests import digest

MAX_SAMPLES = 3


class PairWriter:
    """A writer and counter of pairs and rejects.

    A pair is rejected if its answers are too alike, if one is empty, or if the pair is known.

    Attributes:
        pairs: Pairs by split.
        rejected: Rejects by reason.
        samples: The first pairs.
    """

    def __init__(self, out: Draft, max_similarity: float):
        """Open both tables.

        Args:
            out: The draft that is written to.
            max_similarity: Answers that are at least so similar count as nearly equal.
        """
        self.pairs: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.samples: list[dict[str, str]] = []
        self._pairs = out.writer("pairs")
        self._rejects = out.writer("rejects")
        self._max_similarity = max_similarity
        self._known_ids: set[str] = set()

    def __enter__(self) -> PairWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._pairs.close()
        self._rejects.close()

    def add(
        self,
        prompt: Turns,
        chosen: str,
        rejected: str,
        *,
        kind: str,
        split: str,
        conversation: str | None,
        address: str,
    ) -> None:
        """Add a pair, or reject it.

        Args:
            prompt: The turns before the answer.
            chosen: The better answer.
            rejected: The worse answer.
            kind: `model` or `user`, by who wrote the worse answer.
            split: `train` or `heldout`.
            conversation: The id of the conversation it is made of, if any.
            address: Where it comes from: a conversation, or a row of a file.
        """
        problem = self._problem(chosen, rejected)
        if problem:
            self.reject(address, rejected or chosen, problem, f"chosen is: {chosen[:200]}")
            return
        pair_id = _pair_id(prompt, chosen, rejected)
        if pair_id in self._known_ids:
            self.reject(address, rejected, "duplicate", "the same pair was there before")
            return
        self._known_ids.add(pair_id)
        row = {
            "id": pair_id,
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "kind": kind,
            "split": split,
            "conversation": conversation,
        }
        self._pairs.write([row])
        self.pairs[split] += 1
        if len(self.samples) < MAX_SAMPLES:
            sample = {"prompt": prompt[-1]["content"], "chosen": chosen, "rejected": rejected}
            self.samples.append(sample)

    def reject(self, address: str, content: str, reason: str, detail: str) -> None:
        """Write a reject: where it comes from, its text, and why it makes no pair."""
        self.rejected[reason] += 1
        row = {"conversation": address, "content": content, "reason": reason, "detail": detail}
        self._rejects.write([row])

    def _problem(self, chosen: str, rejected: str) -> str | None:
        """Return the reason of rejection if the two answers make no pair."""
        if not rejected:
            return "empty_answer"
        a, b = _normalized(chosen), _normalized(rejected)
        if a == b:
            return "equal"
        if similarity(a, b) >= self._max_similarity:
            return "nearly_equal"
        return None


def _normalized(text: str) -> str:
    """Return a text without regard to case and the kind of white space."""
    return " ".join(text.split()).casefold()


def _pair_id(prompt: Turns, chosen: str, rejected: str) -> str:
    parts: list[str] = []
    for turn in prompt:
        parts += [turn["role"], turn["content"]]
    return digest(*parts, "chosen", chosen, "rejected", rejected)
