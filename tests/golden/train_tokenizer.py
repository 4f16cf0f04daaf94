"""Thirty made-up pages."""

from __future__ import annotations

from typing import Any

from tests.golden import made_up


def inputs(publish: Any) -> dict[str, Any]:
    return {
        "training_documents": publish(
            "training_documents", documents=made_up.documents(0, 30), rejects=[]
        )
    }


SETTINGS: dict[str, Any] = {"vocabulary_size": 512, "reserved_tokens": 4}
BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"vocabulary_size": 100},
        r"train_tokenizer\.vocabulary_size = 100: .*greater than or equal to 320",
    ),
    (
        {"vocabulary_size": 320, "reserved_tokens": 200},
        r"256 bytes and 204 special tokens need 460",
    ),
    ({"vocab_size": 512}, r"did you mean 'vocabulary_size'"),
]
