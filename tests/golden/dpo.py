"""The right colour is better than another one."""

from __future__ import annotations

from typing import Any

from stages.digests import digest
from tests.golden import sft


def pair(question: str, chosen: str, rejected: str, split: str = "train") -> dict[str, Any]:
    prompt = [{"role": "user", "content": question}]
    name = digest(question, chosen, rejected)
    return {
        "id": name,
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "kind": "user",
        "split": split,
    }


def pairs(count: int, heldout: int) -> list[dict[str, Any]]:
    asked = [
        (
            f"Which colour is thing number {n}?",
            f"{sft.COLOURS[n % 4]}.",
            f"{sft.COLOURS[(n + 1) % 4]}, or not",
        )
        for n in range(count)
    ]
    return [pair(*one, split="heldout" if n < heldout else "train") for n, one in enumerate(asked)]


SETTINGS: dict[str, Any] = {
    "training": {
        "duration": 6,
        "duration_in": "steps",
        "batch_size": 4,
        "evaluate_every": 3,
        "log_every": 1,
        "learning_rate": 1e-3,
    },
    "compute": {"threads": 1, "precision": "float32"},
}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"beta": 0}, r"dpo\.beta = 0"),
    ({"sftweight": 1}, r"did you mean 'sft_weight'"),
]


def inputs(publish: Any) -> dict[str, Any]:
    return {
        "checkpoint": sft.checkpoint(publish),
        "preferences": publish("preferences", pairs=pairs(16, 4)),
    }
