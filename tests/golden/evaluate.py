"""Two tasks and three pages."""

from __future__ import annotations

from typing import Any

from stages.digests import digest
from tests.checkpoints import tiny_checkpoint


def _item(task: str, number: int) -> dict[str, Any]:
    choices = [f"the number {n}" for n in range(number, number + 2 + number % 3)]
    return {
        "id": digest(task, str(number)),
        "task": task,
        "question": f"Which number is {number}? Answer:",
        "choices": choices,
        "answer": number % 2,
        "evidence": f"The number {number}.",
        "origin": "heldout",
        "url": "http://localhost/numbers",
    }


ITEMS = [_item("heldout_description", number) for number in range(12)] + [
    _item("user_mc", number) for number in range(4)
]
PAGES = [
    {
        "id": digest("page", str(n)),
        "url": f"http://localhost/{n}",
        "title": f"Page {n}",
        "text": text,
    }
    for n, text in enumerate(
        [
            "A short page: <|im_end|> is text.\n",
            "Zürich — naïve 🙂\n" * 3,
            "def f(x):\n    return x + 1\n\n" * 20,
        ]
    )
]

SETTINGS: dict[str, Any] = {"prompts": ["Hello"], "new_tokens": 4, "device": "cpu"}

BAD: list[tuple[dict[str, Any], str]] = [
    ({"limit": 0}, r"evaluate\.limit = 0"),
    ({"task": ["arc_easy"]}, r"evaluate\.task is not a setting; did you mean 'tasks'"),
]


def inputs(publish: Any) -> dict[str, Any]:
    return {
        "checkpoint": tiny_checkpoint(publish),
        "eval_items": publish("eval_items", items=ITEMS, pages=PAGES),
    }
