"""Checkpoints that groundup would not publish: valid ones with one error in their files."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

Files = dict[str, bytes]
Damage = Callable[[Files], None]
WEIGHTS = "model.safetensors"


def json_file(name: str, **changes: Any) -> Damage:
    """Other values for keys of a JSON file; `...` removes a key."""

    def damage(files: Files) -> None:
        values = json.loads(files[name]) | changes
        files[name] = json.dumps(
            {key: value for key, value in values.items() if value is not ...}
        ).encode()

    return damage


def replaced(name: str, data: bytes) -> Damage:
    return lambda files: files.update({name: data})


def cut(name: str, share: float) -> Damage:
    return lambda files: files.update({name: files[name][: int(len(files[name]) * share)]})


def gone(name: str) -> Damage:
    def damage(files: Files) -> None:
        del files[name]

    return damage


def header(change: Callable[[dict[str, Any]], None]) -> Damage:
    """The safetensors file with another header and the same data."""

    def damage(files: Files) -> None:
        data = files[WEIGHTS]
        length = struct.unpack("<Q", data[:8])[0]
        tensors = json.loads(data[8 : 8 + length])
        change(tensors)
        written = json.dumps(tensors).encode()
        files[WEIGHTS] = struct.pack("<Q", len(written)) + written + data[8 + length :]

    return damage


def tokenizer_part(**changes: Any) -> Damage:
    return json_file("tokenizer.json", **changes)


def vocabulary(change: Callable[[dict[str, int]], None]) -> Damage:
    def damage(files: Files) -> None:
        values = json.loads(files["tokenizer.json"])
        change(values["model"]["vocab"])
        files["tokenizer.json"] = json.dumps(values).encode()

    return damage


def _one(tensors: dict[str, Any], **values: Any) -> None:
    tensors["model.norm.weight"] |= values


HUGE = 1 << 62
PRE_TOKENIZER = {
    "type": "Split",
    "pattern": {"Regex": "(a+)+$"},
    "behavior": "Isolated",
    "invert": False,
}

# For the code that reads the weights or their sizes.
WEIGHTS_DAMAGES: dict[str, Damage] = {
    "no header": replaced(WEIGHTS, b""),
    "a header of three bytes": replaced(WEIGHTS, b"\1\2\3"),
    "a header longer than the file": replaced(WEIGHTS, struct.pack("<Q", HUGE) + b"{}"),
    "a header of all bits": replaced(WEIGHTS, b"\xff" * 100),
    "a header that is no JSON": replaced(WEIGHTS, struct.pack("<Q", 4) + b"[[[["),
    "a header that is nested deeply": replaced(WEIGHTS, struct.pack("<Q", 90_000) + b"[" * 90_000),
    "a header that is a list": replaced(WEIGHTS, struct.pack("<Q", 2) + b"[]"),
    "a file that was cut": cut(WEIGHTS, 0.5),
    "an absurd shape": header(lambda tensors: _one(tensors, shape=[HUGE])),
    "a shape of many dimensions": header(lambda tensors: _one(tensors, shape=[2] * 10_000)),
    "a negative shape": header(lambda tensors: _one(tensors, shape=[-64])),
    "a shape of texts": header(lambda tensors: _one(tensors, shape=["64"])),
    "absurd offsets": header(lambda tensors: _one(tensors, data_offsets=[0, HUGE])),
    "offsets that overlap": header(lambda tensors: _one(tensors, data_offsets=[0, 256])),
    "an unknown type": header(lambda tensors: _one(tensors, dtype="F4096")),
    "whole numbers for weights": header(lambda tensors: _one(tensors, dtype="I32")),
    "another shape": header(lambda tensors: _one(tensors, shape=[8, 8])),
    "a tensor too few": header(
        lambda tensors: tensors.update(other=tensors.pop("model.norm.weight"))
    ),
    "the weights of another width": json_file("config.json", hidden_size=128),
    "an absurd width": json_file("config.json", hidden_size=65536),
    "an absurd vocabulary": json_file("config.json", vocab_size=1 << 24),
    "no weights": gone(WEIGHTS),
}
CONFIG_DAMAGES: dict[str, Damage] = {
    "no config": gone("config.json"),
    "an empty config": replaced("config.json", b""),
    "a config that is a list": replaced("config.json", b"[]"),
    "a config that is nested deeply": replaced("config.json", b"[" * 100_000),
    "a config of many digits": replaced("config.json", b'{"vocab_size": ' + b"9" * 100_000 + b"}"),
    "a config that is NaN": replaced("config.json", b'{"rms_norm_eps": NaN}'),
    "a config with a key twice": replaced("config.json", b'{"vocab_size": 1, "vocab_size": 2}'),
    "a config that is no text": replaced("config.json", b"\xff\xfe"),
    "a negative width": json_file("config.json", hidden_size=-1),
    "a width of zero": json_file("config.json", hidden_size=0),
    "no heads": json_file("config.json", num_attention_heads=0),
    "an impossible width": json_file("config.json", hidden_size=10**30),
    "a width that is a text": json_file("config.json", hidden_size="64; rm"),
    "a width that is a list": json_file("config.json", hidden_size=[64]),
    "impossibly many layers": json_file("config.json", num_hidden_layers=10**9),
    "another model": json_file("config.json", model_type="evil"),
    "a model that is a list": json_file("config.json", model_type=["llama"]),
    "RoPE that is a list": json_file("config.json", rope_parameters=[1], rope_scaling=[1]),
    "no context": json_file("config.json", max_position_embeddings=...),
}
TOKENIZER_DAMAGES: dict[str, Damage] = {
    "no tokenizer": gone("tokenizer.json"),
    "a tokenizer that was cut": cut("tokenizer.json", 0.5),
    "a tokenizer that is empty": replaced("tokenizer.json", b"{}"),
    "a tokenizer that is nested deeply": replaced("tokenizer.json", b"[" * 100_000),
    "a slow pattern": tokenizer_part(pre_tokenizer=PRE_TOKENIZER),
    "a normalizer that multiplies": tokenizer_part(
        normalizer={"type": "Replace", "pattern": {"String": ""}, "content": "a" * 10_000}
    ),
    "a model of words": tokenizer_part(
        model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    ),
    "a decoder that multiplies": tokenizer_part(
        decoder={"type": "Replace", "pattern": {"String": ""}, "content": "a" * 10_000}
    ),
    "merges of nothing": tokenizer_part(model={"type": "BPE", "vocab": {}, "merges": ["a b"]}),
    "settings that were cut": cut("tokenizer_config.json", 0.5),
    "settings that are a list": replaced("tokenizer_config.json", b"[]"),
    "a special token that is a number": json_file("tokenizer_config.json", eos_token=7),
    "a special token that is a list": json_file("tokenizer_config.json", eos_token=["x"]),
}
# the loaders ignore these; the contract does not
CONTRACT_DAMAGES: dict[str, Damage] = {
    "a pickle": replaced("pytorch_model.bin", b"cos\nsystem\n(S'touch owned'\ntR."),
    "a program": replaced("modeling_evil.py", b"raise SystemExit('owned')\n"),
    "a program in a folder": replaced("custom_generate.py", b"raise SystemExit('owned')\n"),
    "an adapter": replaced("adapter_config.json", b"{}"),
    "a token that the model lacks": vocabulary(lambda words: words.update({"zzz": 10**6})),
    "a token of a negative number": vocabulary(lambda words: words.update({"zzz": -1})),
}
EVERY = WEIGHTS_DAMAGES | CONFIG_DAMAGES | TOKENIZER_DAMAGES | CONTRACT_DAMAGES
