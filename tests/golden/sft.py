"""Small questions with one-word answers, and a tiny model that can learn them by heart."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import save
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from data_contracts.bundles import LLAMA3_SPLIT
from stages.digests import digest
from stages.lm.config import ModelConfig
from stages.lm.model import LanguageModel

SPECIAL = ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = Path(__file__).parents[2] / "stages" / "train_tokenizer" / "chat_template.jinja"
COLOURS = ["red", "green", "blue", "white"]


@cache
def tokenizer() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(
        [f"user assistant Which colour is thing number {n}? {COLOURS[n % 4]}." for n in range(20)],
        trainer,
    )
    return made


def checkpoint(publish: Any, **sizes: Any) -> Any:
    words = tokenizer()
    shape = {
        "width": 32,
        "layers": 2,
        "heads": 2,
        "kv_heads": 2,
        "ffn_width": 64,
        "context": 96,
    } | sizes
    config = ModelConfig(vocab_size=words.get_vocab_size(), **shape)
    model = LanguageModel(config)
    model.initialize(0)
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    names = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[0],
        "pad_token": SPECIAL[1],
    }
    files = {
        "config.json": json.dumps(config.to_checkpoint().to_json() | ids).encode(),
        "generation_config.json": json.dumps(ids).encode(),
        "model.safetensors": save(model.state_dict(), metadata={"format": "pt"}),
        "tokenizer.json": words.to_str().encode(),
        "tokenizer_config.json": json.dumps(names).encode(),
        "chat_template.jinja": TEMPLATE.read_bytes(),
    }
    return publish("checkpoint", files=files, metrics=[])


def conversation(
    question: str, answer: str, split: str = "train", kind: str = "user"
) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return chat(messages, split, kind)


def chat(
    messages: list[dict[str, str]], split: str = "train", kind: str = "user"
) -> dict[str, Any]:
    name = digest(*(message["content"] for message in messages))
    return {
        "id": name,
        "messages": messages,
        "kind": kind,
        "split": split,
        "url": f"file:///chats.jsonl#{name}",
    }


def colours(count: int, heldout: int) -> list[dict[str, Any]]:
    asked = [(f"Which colour is thing number {n}?", f"{COLOURS[n % 4]}.") for n in range(count)]
    return [
        conversation(*pair, split="heldout" if n < heldout else "train")
        for n, pair in enumerate(asked)
    ]


def inputs(publish: Any) -> dict[str, Any]:
    return {
        "checkpoint": checkpoint(publish),
        "conversations": publish("conversations", conversations=colours(24, 4)),
    }


SETTINGS: dict[str, Any] = {
    "training": {
        "duration": 12,
        "duration_in": "steps",
        "batch_size": 4,
        "evaluate_every": 6,
        "log_every": 3,
    },
    "max_new_tokens": 8,
    "compute": {"threads": 1, "precision": "float32"},
}
BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"repeat": {"user": 0}},
        r"0 of 24 conversations can be trained on: none was rejected, 0 are held out",
    ),
    ({"training": {"duration_in": "hours"}}, r"sft\.training\.duration_in = 'hours'"),
]
