"""Ten made-up pages to train on and twenty held out."""

from __future__ import annotations

from typing import Any

from tests.golden import made_up


def inputs(publish: Any) -> dict[str, Any]:
    train, heldout = (
        made_up.unique(made_up.documents(0, 10)),
        made_up.unique(made_up.documents(10, 20)),
    )
    return {
        "unique_documents": publish("unique_documents", train=train, heldout=heldout, rejects=[])
    }


SETTINGS: dict[str, Any] = {"workers": 1, "max_items": 60}
BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"benchmarks": ["/nowhere/test.jsonl"]},
        r"collect_evals.benchmarks: /nowhere/test\.jsonl: cannot be read: No such file",
    ),
    (
        {"benchmarks": ["~no-such-user/test.jsonl"]},
        r"collect_evals.benchmarks: ~no-such-user/test\.jsonl: cannot be read: No such file",
    ),
    ({"min_characters": 300}, r"min_characters = 300 must be below max_characters = 200"),
]
