"""Reads the user's own chats: rows with `messages`, or with `prompt` and `response`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stages.user_files import read_rows, row_address

Message = dict[str, str]  # role and content

ROLES = ("system", "user", "assistant")
ANSWER_KEYS = ("response", "completion")


@dataclass(frozen=True)
class UserRow:
    """One row of a file, with its messages or the reason why it has no usable ones.

    Attributes:
        url: The address of the row.
        messages: The chat; None if the row is rejected.
        content: The row as text.
        reason: Why the row is rejected, as a short name; empty if it is not.
        detail: What exactly is wrong, with file and row.
    """

    url: str
    messages: list[Message] | None
    content: str
    reason: str = ""
    detail: str = ""


class _BadChatError(Exception):
    """A row that holds no chat.

    Attributes:
        reason: A short name to count by.
        detail: What exactly is wrong.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def read_chats(path: str) -> Iterator[UserRow]:
    """Yield every row of a JSONL or Parquet file, usable or not.

    Raises:
        InputError: The file cannot be read.
    """
    for number, value, broken in read_rows(path):
        url = row_address(path, number)
        content = value
        if not isinstance(value, str):
            content = json.dumps(value, ensure_ascii=False, default=str)
        try:
            if broken:
                raise _BadChatError("unreadable_row", broken)
            yield UserRow(url, messages_of(value), content)
        except _BadChatError as bad:
            detail = f"{path} row {number}: {bad.detail}"
            yield UserRow(url, None, content, bad.reason, detail)


def messages_of(row: Any) -> list[Message]:
    """Return the messages of a row, without spaces around their texts.

    Raises:
        _BadChatError: The row holds no chat.
    """
    if not isinstance(row, dict):
        raise _BadChatError(
            "not_an_object",
            f"is a {type(row).__name__}, wanted an object with messages, or prompt and response",
        )
    turns = row.get("messages")
    if turns is None and row.get("prompt") is not None:
        turns = _turns_of_prompt(row)
    if not isinstance(turns, list) or not turns:
        keys = sorted(str(key) for key in row)
        detail = f"has neither messages nor prompt and response, but {keys}"
        raise _BadChatError("no_messages", detail)
    messages = [_message(number, turn) for number, turn in enumerate(turns, start=1)]
    _check_order(messages)
    return messages


def _turns_of_prompt(row: dict[str, Any]) -> list[dict[str, Any]]:
    answer = None
    for key in ANSWER_KEYS:
        if answer is None:
            answer = row.get(key)
    return [
        {"role": "user", "content": row["prompt"]},
        {"role": "assistant", "content": answer},
    ]


def _message(number: int, turn: Any) -> Message:
    role, content = None, None
    if isinstance(turn, dict):
        role, content = turn.get("role"), turn.get("content")
    if role not in ROLES:
        detail = f"turn {number} has role {role!r}, there are {', '.join(ROLES)}"
        raise _BadChatError("unknown_role", detail)
    if not isinstance(content, str) or not content.strip():
        raise _BadChatError("empty_turn", f"turn {number} ({role}) has no text")
    return {"role": role, "content": content.strip()}


def _check_order(messages: list[Message]) -> None:
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    expected = ["user", "assistant"] * (len(turns) // 2)
    if not turns or turns != expected:
        raise _BadChatError(
            "wrong_order",
            f"roles are {', '.join(roles)};"
            " wanted an optional system, then user and assistant in turn",
        )
