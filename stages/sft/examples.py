"""Conversations → examples that fit the context, and how many did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from data_contracts import Artifact
from stages.lm.chat import ChatFormat, Encoded, Messages
from stages.lm.loss import IGNORED
from stages.sft.packing import Example

AT_ONCE = 1024  # conversations tokenized together


@dataclass
class Read:
    """train: kind by kind repeated as asked for. heldout: with the messages, for sample answers. rejected: by reason."""

    train: list[Example] = field(default_factory=list)
    heldout: list[tuple[Example, Messages]] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    shortened: int = 0


def read(
    conversations: Artifact, chat: ChatFormat, context: int, repeat: Mapping[str, int]
) -> Read:
    """All conversations as examples of at most `context` tokens."""
    found = Read()
    for batch in conversations.batches(
        "conversations", ["id", "messages", "kind", "split"], batch_size=AT_ONCE
    ):
        rows = [row for row in batch.to_pylist() if repeat.get(row["kind"], 1)]
        for row, messages, encoded in _encoded(rows, chat, found.rejected):
            example, messages, reason = fitted(row["id"], messages, encoded, chat, context)
            if example is None:
                found.rejected[reason] += 1
                continue
            found.shortened += len(messages) < len(row["messages"])
            if row["split"] == "heldout":
                found.heldout.append((example, messages))
            else:
                found.train += [example] * repeat.get(row["kind"], 1)
    return found


def fitted(
    name: str, messages: Messages, encoded: Encoded, chat: ChatFormat, context: int
) -> tuple[Example | None, Messages, str]:
    """The conversation, without its last exchanges where it is longer than the context; None and why if no exchange fits."""
    while len(encoded.ids) - 1 > context:
        answered = [
            number for number, message in enumerate(messages[:-1]) if message["role"] == "assistant"
        ]
        if not answered:
            return None, messages, "too_long"
        messages = messages[: answered[-1] + 1]
        encoded = chat.encode([messages])[0]
    taken, wanted = encoded.shifted(IGNORED)
    if (wanted == IGNORED).all():
        return None, messages, "nothing_to_say"
    return Example(name, taken, wanted), messages, ""


def _encoded(
    rows: list[dict[str, Any]], chat: ChatFormat, rejected: Counter[str]
) -> Iterator[tuple[dict[str, Any], Messages, Encoded]]:
    good = []
    for row in rows:
        if chat.forged(row["messages"]):
            rejected["special_token_in_text"] += 1
        else:
            good.append(row)
    for row, encoded in zip(
        good, chat.encode([row["messages"] for row in good]) if good else [], strict=True
    ):
        yield row, row["messages"], encoded
