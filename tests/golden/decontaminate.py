"""Twenty made-up pages, one of which quotes a benchmark question."""

from __future__ import annotations

from typing import Any

from stages.digests import digest
from tests.golden import made_up

QUESTION = (
    "A farmer has nine red hens and four brown geese, and sells half of the geese at the market. "
    "How many birds are left on the farm?"
)


def item(
    question: str, answer: str = "eleven", task: str = "farm", origin: str = "benchmark"
) -> dict[str, Any]:
    choices = [answer, "thirteen"]
    return {
        "id": digest(task, question, *choices),
        "task": task,
        "question": question,
        "choices": choices,
        "answer": 0,
        "evidence": f"{question} {answer}",
        "origin": origin,
        "document": None,
        "url": "file://farm.jsonl",
    }


def inputs(publish: Any) -> dict[str, Any]:
    train = made_up.unique(made_up.documents(0, 20))
    train[7]["text"] += "\n\n" + QUESTION.upper()
    pages = [
        {"id": row["id"], "url": row["url"], "title": None, "text": row["text"]}
        for row in made_up.documents(20, 2)
    ]
    return {
        "unique_documents": publish(
            "unique_documents",
            train=train,
            heldout=made_up.unique(made_up.documents(20, 2)),
            rejects=[],
        ),
        "eval_items": publish("eval_items", items=[item(QUESTION)], pages=pages),
    }


SETTINGS: dict[str, Any] = {"workers": 1}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"shortest": 20}, r"shortest = 20 must not exceed ngram = 13"),
    ({"ngrams": 8}, r"did you mean 'ngram'"),
]
