"""Sums, a text that a tiny model learns in seconds, and a tokenizer trained on it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from data_contracts.bundles import LLAMA3_SPLIT
from stages.digests import digest

END, PAD = "<|endoftext|>", "<|pad|>"


def texts(count: int) -> list[str]:
    """Twelve sums in each text."""
    found = []
    for number in range(count):
        first = number * 7 % 50
        seconds = range(number % 5, number % 5 + 12)
        lines = [f"{first} + {second} = {first + second}.\n" for second in seconds]
        found.append("".join(lines))
    return found


def train_tokenizer(corpus: list[str], vocab_size: int = 320) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, PAD],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "pad_token": PAD,
    }
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(settings).encode(),
        "chat_template.jinja": b"{% for message in messages %}{{ message.content }}{% endfor %}",
        "report.json": b"{}",
    }


def rows(tokenizer: Tokenizer, corpus: list[str]) -> list[dict[str, Any]]:
    end = tokenizer.token_to_id(END)
    return [
        {
            "document": digest(t),
            "part": 0,
            "tokens": [*tokenizer.encode(t).ids, end],
            "bytes": len(t.encode()),
        }
        for t in corpus
    ]


def inputs(publish: Any) -> dict[str, Any]:
    corpus = texts(60)
    tokenizer = train_tokenizer(corpus)
    files = tokenizer_files(tokenizer)
    stamp = f"{hashlib.sha256(files['tokenizer.json']).hexdigest()} {tokenizer.get_vocab_size()}"
    shards = publish(
        "token_shards",
        train=rows(tokenizer, corpus[6:]),
        heldout=rows(tokenizer, corpus[:6]),
        files={"tokenizer.sha256": stamp.encode()},
    )
    return {"token_shards": shards, "tokenizer": publish("tokenizer", files=files)}


SETTINGS: dict[str, Any] = {
    "model": {"width": 32, "layers": 2, "heads": 2, "kv_heads": 1, "ffn_width": 64, "context": 32},
    "training": {"duration": 20, "batch_size": 8, "evaluate_every": 10, "log_every": 5},
    "compute": {"threads": 1},
}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": {"context": 1 << 17}}, "one window of the model takes 131073"),
    ({"model": {"heads": 3}}, "width 128 / heads 3 must be a whole even number"),
    ({"model": {"moe": {"experts": 4}}}, "experts need architecture qwen3_moe"),
    ({"training": {"optimiser": "adamw"}}, "did you mean 'optimizer'"),
    ({"compute": {"devices": 3, "replicas": 2}}, "devices 3 must be a multiple of replicas 2"),
]
