"""The user's own pairs: rows with `prompt`, `chosen` and `rejected`, each a text or messages, checked one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stages.user_files import read_rows, row_address

ROLES = ("system", "user", "assistant")
Turns = list[dict[str, str]]


@dataclass(frozen=True)
class UserPair:
    """One row of a file: its pair, or the reason why it has none to give. detail names file and row."""

    address: str
    prompt: Turns
    chosen: str
    rejected: str
    content: str
    reason: str = ""
    detail: str = ""


class _BadRowError(Exception):
    """reason, what exactly."""


def read_pairs(path: str) -> Iterator[UserPair]:
    """Raises InputError if the file cannot be read."""
    for number, value, broken in read_rows(path):
        address = row_address(path, number)
        content = (
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        )
        try:
            if broken:
                raise _BadRowError("unreadable_row", broken)
            prompt, chosen, rejected = pair_of(value)
            yield UserPair(address, prompt, chosen, rejected, content)
        except _BadRowError as bad:
            reason, detail = bad.args
            yield UserPair(address, [], "", "", content, reason, f"{path} row {number}: {detail}")


def pair_of(row: Any) -> tuple[Turns, str, str]:
    """(turns before the answer, chosen, rejected).

    chosen and rejected are answers to `prompt`, or whole conversations that share all turns but the last; these may have `prompt`
    beside them too, as the end of what they share (the shape of ultrafeedback_binarized).
    """
    if not isinstance(row, dict):
        raise _BadRowError(
            "not_an_object",
            f"is a {type(row).__name__}, wanted an object with prompt, chosen and rejected",
        )
    chosen, rejected = (
        _turns(row.get("chosen"), "assistant", "chosen"),
        _turns(row.get("rejected"), "assistant", "rejected"),
    )
    if row.get("prompt") is not None:
        prompt = _turns(row["prompt"], "user", "prompt")
        shared = chosen[:-1]
        if shared != rejected[:-1] or (shared and shared[-len(prompt) :] != prompt):
            raise _BadRowError(
                "wrong_order",
                "chosen and rejected are longer than an answer, and do not both end with the prompt and one",
            )
        prompt = shared or prompt
    else:
        prompt = chosen[:-1]
        if prompt != rejected[:-1]:
            raise _BadRowError(
                "different_prompts",
                "chosen and rejected do not answer the same turns, and there is no prompt",
            )
    roles = [turn["role"] for turn in prompt]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    answered = [turns[-1]["role"] for turns in (chosen, rejected)]
    if (
        spoken != (["user", "assistant"] * len(spoken))[: len(spoken)]
        or len(spoken) % 2 == 0
        or answered != ["assistant"] * 2
    ):
        raise _BadRowError(
            "wrong_order",
            f"roles are {', '.join(roles) or 'none'}, then {' and '.join(answered)}; wanted user … user, then assistant",
        )
    return prompt, chosen[-1]["content"], rejected[-1]["content"]


def _turns(value: Any, role: str, field: str) -> Turns:
    turns = [{"role": role, "content": value}] if isinstance(value, str) else value
    if not isinstance(turns, list) or not turns:
        raise _BadRowError(
            "no_pair", f"{field} is {'missing' if value is None else 'neither a text nor messages'}"
        )
    found = []
    for turn in turns:
        who, said = (
            (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
        )
        if who not in ROLES:
            raise _BadRowError(
                "unknown_role",
                f"{field} has a turn with role {who!r}, there are {', '.join(ROLES)}",
            )
        if not isinstance(said, str) or not said.strip():
            raise _BadRowError("empty_turn", f"{field} has a turn without text")
        found.append({"role": who, "content": said.strip()})
    return found
