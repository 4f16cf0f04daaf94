"""The user's own chats: rows with `messages`, or `prompt` and `response`, checked one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stages.user_files import read_rows, row_address

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class UserRow:
    """One row of a file: its messages, or the reason why it has none to give. detail names file and row."""

    url: str
    messages: list[dict[str, str]] | None
    content: str
    reason: str = ""
    detail: str = ""


def read_chats(path: str) -> Iterator[UserRow]:
    """Raises InputError if the file cannot be read."""
    for number, value, broken in read_rows(path):
        url = row_address(path, number)
        content = (
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        )
        if broken:
            yield UserRow(url, None, content, "unreadable_row", f"{path} row {number}: {broken}")
            continue
        messages, reason, detail = messages_of(value)
        yield UserRow(
            url, messages, content, reason, f"{path} row {number}: {detail}" if reason else ""
        )


def messages_of(row: Any) -> tuple[list[dict[str, str]] | None, str, str]:
    """(messages, "", ""), or (None, named reason, what exactly)."""
    if not isinstance(row, dict):
        return (
            None,
            "not_an_object",
            f"is a {type(row).__name__}, wanted an object with messages, or prompt and response",
        )
    turns = row.get("messages")
    if turns is None and row.get("prompt") is not None:
        answer = next(
            (row[key] for key in ("response", "completion") if row.get(key) is not None), None
        )
        turns = [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": answer},
        ]
    if not isinstance(turns, list) or not turns:
        return (
            None,
            "no_messages",
            f"has neither messages nor prompt and response, but {sorted(map(str, row))}",
        )
    messages = []
    for number, turn in enumerate(turns, 1):
        role, content = (
            (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
        )
        if role not in ROLES:
            return (
                None,
                "unknown_role",
                f"turn {number} has role {role!r}, there are {', '.join(ROLES)}",
            )
        if not isinstance(content, str) or not content.strip():
            return None, "empty_turn", f"turn {number} ({role}) has no text"
        messages.append({"role": role, "content": content.strip()})
    if wrong := _order(messages):
        return None, "wrong_order", wrong
    return messages, "", ""


def _order(messages: list[dict[str, str]]) -> str | None:
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    wanted = ["user", "assistant"] * (len(turns) // 2)
    return (
        None
        if turns and turns == wanted
        else f"roles are {', '.join(roles)}; wanted an optional system, then user and assistant in turn"
    )
