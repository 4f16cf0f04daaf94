"""Conversations → training examples that fit the context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from data_contracts import Artifact
from stages.lm.chat import ChatFormat, EncodedChat, Messages
from stages.lm.loss import IGNORED
from stages.sft.packing import Example

AT_ONCE = 1024  # conversations that are tokenized together
COLUMNS = ["id", "messages", "kind", "split"]


@dataclass
class ExampleSets:
    """The examples of an artifact of conversations.

    Attributes:
        train: Training examples, each as often as its kind is to be repeated.
        heldout: Held-out examples and their messages, which sample answers need.
        rejected: Number of rejected conversations by reason.
        shortened: Number of conversations that lost their last exchanges.
    """

    train: list[Example] = field(default_factory=list)
    heldout: list[tuple[Example, Messages]] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    shortened: int = 0


def read(
    conversations: Artifact, chat: ChatFormat, context: int, repeat: Mapping[str, int]
) -> ExampleSets:
    """Read all conversations as examples.

    Args:
        conversations: The artifact.
        chat: Encodes the conversations.
        context: Largest number of tokens of an example.
        repeat: How often a kind of conversation occurs in an epoch; 1 for kinds not named.
    """
    found = ExampleSets()
    for batch in conversations.batches("conversations", COLUMNS, batch_size=AT_ONCE):
        rows = [row for row in batch.to_pylist() if repeat.get(row["kind"], 1)]
        for row, encoded in _encoded(rows, chat, found.rejected):
            example, messages, reason = fitted(row["id"], row["messages"], encoded, chat, context)
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
    name: str, messages: Messages, encoded: EncodedChat, chat: ChatFormat, context: int
) -> tuple[Example | None, Messages, str]:
    """Shorten a conversation to the context by leaving out its last exchanges.

    Args:
        name: Name of the example.
        messages: The conversation.
        encoded: Its tokens.
        chat: Encodes a shortened conversation.
        context: Largest number of tokens of the example.

    Returns:
        The example, its messages and "". If not even the first exchange fits, or no token is the
        assistant's: None, the messages and the reason of rejection.
    """
    while len(encoded.ids) - 1 > context:
        last_answer = _last_answer(messages[:-1])
        if last_answer is None:
            return None, messages, "too_long"
        messages = messages[: last_answer + 1]
        encoded = chat.encode([messages])[0]
    ids, labels = encoded.shifted(IGNORED)
    if (labels == IGNORED).all():
        return None, messages, "nothing_to_say"
    return Example(name, ids, labels), messages, ""


def _last_answer(messages: Messages) -> int | None:
    for number in reversed(range(len(messages))):
        if messages[number]["role"] == "assistant":
            return number
    return None


def _encoded(
    rows: list[dict[str, Any]], chat: ChatFormat, rejected: Counter[str]
) -> Iterator[tuple[dict[str, Any], EncodedChat]]:
    """Yield the rows and their tokens, without rows whose text spells out a special token."""
    accepted = []
    for row in rows:
        if chat.special_token_in(row["messages"]):
            rejected["special_token_in_text"] += 1
        else:
            accepted.append(row)
    if accepted:
        encoded = chat.encode([row["messages"] for row in accepted])
        yield from zip(accepted, encoded, strict=True)
