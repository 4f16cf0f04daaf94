"""Reads the user's own pairs: rows with `prompt`, `chosen` and `rejected`.

Each of the three is a text or a list of messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stages.user_files import read_rows, row_address

Turns = list[dict[str, str]]  # each with role and content

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class UserPair:
    """One row of a file, with its pair or the reason why it has no usable one.

    Attributes:
        address: The address of the row.
        prompt: The turns before the answer; empty if the row is rejected.
        chosen: The better answer.
        rejected: The worse answer.
        content: The row as text.
        reason: Why the row is rejected, as a short name; empty if it is not.
        detail: What exactly is wrong, with file and row.
    """

    address: str
    prompt: Turns
    chosen: str
    rejected: str
    content: str
    reason: str = ""
    detail: str = ""


class _BadPairError(Exception):
    """A row that holds no pair.

    Attributes:
        reason: A short name to count by.
        detail: What exactly is wrong.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def read_pairs(path: str) -> Iterator[UserPair]:
    """Yield every row of a JSONL or Parquet file, usable or not.

    Raises:
        InputError: The file cannot be read.
    """
    for number, value, broken in read_rows(path):
        address = row_address(path, number)
        content = value
        if not isinstance(value, str):
            content = json.dumps(value, ensure_ascii=False, default=str)
        try:
            if broken:
                raise _BadPairError("unreadable_row", broken)
            prompt, chosen, rejected = pair_of(value)
            yield UserPair(address, prompt, chosen, rejected, content)
        except _BadPairError as bad:
            detail = f"{path} row {number}: {bad.detail}"
            yield UserPair(address, [], "", "", content, bad.reason, detail)


def pair_of(row: Any) -> tuple[Turns, str, str]:
    """Return the turns before the answer, the chosen answer and the rejected one.

    `chosen` and `rejected` are answers to `prompt`, or whole conversations that share all turns but
    the last. Whole conversations may have a `prompt` too, which repeats the end of the shared turns
    (the shape of ultrafeedback_binarized).

    Raises:
        _BadPairError: The row holds no pair.
    """
    if not isinstance(row, dict):
        raise _BadPairError(
            "not_an_object",
            f"is a {type(row).__name__}, wanted an object with prompt, chosen and rejected",
        )
    chosen = _turns(row.get("chosen"), "assistant", "chosen")
    rejected = _turns(row.get("rejected"), "assistant", "rejected")
    if row.get("prompt") is None:
        prompt = chosen[:-1]
        if prompt != rejected[:-1]:
            raise _BadPairError(
                "different_prompts",
                "chosen and rejected do not answer the same turns, and there is no prompt",
            )
    else:
        prompt = _shared_prompt(_turns(row["prompt"], "user", "prompt"), chosen, rejected)
    _check_order(prompt, chosen, rejected)
    return prompt, chosen[-1]["content"], rejected[-1]["content"]


def _shared_prompt(prompt: Turns, chosen: Turns, rejected: Turns) -> Turns:
    """Return all turns before the answers, of which `prompt` may be only the end."""
    shared = chosen[:-1]
    if not shared and not rejected[:-1]:
        return prompt
    if shared != rejected[:-1] or shared[-len(prompt) :] != prompt:
        raise _BadPairError(
            "wrong_order",
            "chosen and rejected are longer than an answer,"
            " and do not both end with the prompt and one",
        )
    return shared


def _check_order(prompt: Turns, chosen: Turns, rejected: Turns) -> None:
    roles = [turn["role"] for turn in prompt]
    last_roles = [chosen[-1]["role"], rejected[-1]["role"]]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    expected = ["user", "assistant"] * (len(turns) // 2) + ["user"]
    if turns != expected or last_roles != ["assistant", "assistant"]:
        raise _BadPairError(
            "wrong_order",
            f"roles are {', '.join(roles) or 'none'}, then {' and '.join(last_roles)};"
            " wanted user … user, then assistant",
        )


def _turns(value: Any, role: str, field: str) -> Turns:
    """Return the turns that a field holds.

    Args:
        value: The value of the field.
        role: Who speaks, if the value is a text.
        field: The name of the field.
    """
    turns = [{"role": role, "content": value}] if isinstance(value, str) else value
    if not isinstance(turns, list) or not turns:
        problem = "missing" if value is None else "neither a text nor messages"
        raise _BadPairError("no_pair", f"{field} is {problem}")
    return [_turn(turn, field) for turn in turns]


def _turn(turn: Any, field: str) -> dict[str, str]:
    role, content = None, None
    if isinstance(turn, dict):
        role, content = turn.get("role"), turn.get("content")
    if role not in ROLES:
        detail = f"{field} has a turn with role {role!r}, there are {', '.join(ROLES)}"
        raise _BadPairError("unknown_role", detail)
    if not isinstance(content, str) or not content.strip():
        raise _BadPairError("empty_turn", f"{field} has a turn without text")
    return {"role": role, "content": content.strip()}
