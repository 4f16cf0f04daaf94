"""Thirty made-up pages to train on, five held out, and a tokenizer of them."""

from __future__ import annotations

from functools import cache
from typing import Any

from stages.train_tokenizer import bpe, special
from tests.golden import made_up


@cache
def tokenizer_files(texts: tuple[str, ...], vocabulary_size: int = 512) -> dict[str, bytes]:
    """Files of a tokenizer artifact learned from `texts`."""
    tokenizer = bpe.train(
        list(texts), vocabulary_size, special.special_tokens(4), min_frequency=2, max_token_bytes=32
    )
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": special.tokenizer_config(1024, 4).encode(),
        "chat_template.jinja": special.CHAT_TEMPLATE.read_bytes(),
        "report.json": b"{}",
    }


def inputs(publish: Any) -> dict[str, Any]:
    train, heldout = made_up.documents(0, 30), made_up.documents(30, 5)
    return {
        "training_documents": publish("training_documents", documents=train, rejects=[]),
        "unique_documents": publish(
            "unique_documents",
            train=made_up.unique(train),
            heldout=made_up.unique(heldout),
            rejects=[],
        ),
        "tokenizer": publish(
            "tokenizer", files=tokenizer_files(tuple(row["text"] for row in train))
        ),
    }


SETTINGS: dict[str, Any] = {"workers": 1, "shard_bytes": 10_000, "max_row_tokens": 128}
BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"workers": 1, "epochs": {"made_upp": 2}},
        r"pack\.epochs\.made_upp: .*\n.*did you mean 'made_up'",
    ),
    ({"workers": 1, "epochs": {"made_up": -1}}, r"greater than or equal to 0"),
    (
        {"workers": 1, "min_train_tokens": 10_000_000},
        r"30 documents give \d+ tokens, fewer than pack\.min_train_tokens = 10000000",
    ),
]
