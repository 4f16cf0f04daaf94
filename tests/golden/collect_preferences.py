"""A model that knows nothing answers questions about colours."""

from __future__ import annotations

from typing import Any

from tests.golden import sft

SETTINGS: dict[str, Any] = {
    "prompts": 12,
    "max_new_tokens": 40,
    "temperature": 1.0,
    "top_p": 1.0,
    "compute": {"threads": 1, "precision": "float32"},
}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompts": 0}, r"0 pairs from 0 prompts and 0 files"),
    (
        {"files": ["/nowhere/pairs.jsonl"]},
        r"collect_preferences\.files: /nowhere/pairs\.jsonl: cannot be read",
    ),
]


def inputs(publish: Any) -> dict[str, Any]:
    return {
        "checkpoint": sft.checkpoint(publish, context=128),
        "conversations": publish("conversations", conversations=sft.colours(24, 8)),
    }
