"""Rules for artifacts that are files: which must be there, and what must hold of them. None needs torch.

A contract names its rules; each is a function here, from the artifact's folder to a list of problems.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.files import is_file, is_plain, listing, matches
from data_contracts.json_files import read_json
from data_contracts.tensor_files import gguf_problem, safetensors_header
from data_contracts.tokenizer_files import LLAMA3_SPLIT

if TYPE_CHECKING:
    from data_contracts.contract import Contract

WEIGHTS = ("F64", "F32", "F16", "BF16")  # types that a checkpoint's tensors may have
MOST_LAYERS, MOST_EXPERTS = (
    10_000,
    100_000,
)  # in the whole model: above any that there is, and no config.json makes us count for ever

_TOO_BROKEN = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)


def problems(
    contract: Contract, folder: Path, ignore: str | None = None, reads_tables: bool = True
) -> list[str]:
    """Required files that are missing, files that no rule allows, and broken rules.

    ignore: one path that is no part of the content. reads_tables: also the rules that read whole tables.
    """
    present = [path for path in listing(folder) if path != ignore]
    told = [
        f"file {rule.glob} is missing"
        for rule in contract.files
        if rule.required and not any(map(rule.matches, present))
    ]
    allowed = [rule.glob for rule in contract.files] + [
        f"{table}/*.parquet" for table in contract.tables
    ]
    told += [
        f"file {path} is not in the contract"
        for path in present
        if not any(matches(path, glob) for glob in allowed)
    ]
    told += [
        f"file {path!r} is not a plain file with a plain name"
        for path in present
        if not (is_file(folder / path) and is_plain(path))
    ]
    if told:
        return told
    for name in contract.rules:
        if RULES[name] in READ_TABLES and not reads_tables:
            continue
        try:
            told += RULES[name](folder)
        except _TOO_BROKEN as error:  # a file too broken for its rule
            told.append(f"{name}: {type(error).__name__}: {error}")
    return told


def tokenizer_is_byte_level_bpe(folder: Path) -> list[str]:
    tokenizer = read_json(folder / "tokenizer.json")
    told = []
    if tokenizer["model"]["type"] != "BPE":
        told.append(f"tokenizer.json: model is {tokenizer['model']['type']}, wanted BPE")
    if LLAMA3_SPLIT not in _texts(tokenizer["pre_tokenizer"]):
        told.append(
            "tokenizer.json: the split pattern is not Llama-3's, which is the one that llama.cpp calls llama-bpe"
        )
    ids = sorted(_vocabulary(tokenizer).values())
    if ids != list(range(len(ids))):
        told.append("tokenizer.json: ids are not 0..n-1")
    if len(set(tokenizer["model"]["vocab"]) & set(_byte_alphabet())) != 256:
        told.append("tokenizer.json: not every byte has a token, some text could not be encoded")
    return told


def tokenizer_has_special_tokens(folder: Path) -> list[str]:
    tokenizer, settings = (
        read_json(folder / "tokenizer.json"),
        read_json(folder / "tokenizer_config.json"),
    )
    special = {token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    named = {key: _content(settings.get(key)) for key in ("bos_token", "eos_token", "pad_token")}
    return [
        f"tokenizer_config.json: {key} {value!r} is not a special token"
        for key, value in named.items()
        if value not in special
    ]


def tokens_below_vocabulary(folder: Path) -> list[str]:
    digest = (folder / "tokenizer.sha256").read_text("utf-8").split()
    if len(digest) != 2 or len(digest[0]) != 64 or not digest[1].isdecimal():
        return ["tokenizer.sha256: wanted '<sha256 of tokenizer.json> <vocabulary size>'"]
    told = []
    for path in sorted(folder.glob("*/*.parquet")):
        with pq.ParquetFile(path) as file:
            if "tokens" not in file.schema_arrow.names:
                continue  # the schema check tells
            for group in range(file.num_row_groups):
                tokens = file.read_row_group(group, ["tokens"]).column("tokens")
                largest = max(
                    (pc.max(chunk.flatten()).as_py() or 0 for chunk in tokens.chunks), default=0
                )
                if largest >= int(digest[1]):
                    told.append(
                        f"{path.parent.name}/{path.name} row group {group}: token id {largest}, the vocabulary has {digest[1]}"
                    )
    return told


def checkpoint_tensors_follow_config(folder: Path) -> list[str]:
    """Names and shapes in the safetensors headers must be those that config.json calls for, and sharded files need an index."""
    found: dict[str, list[int]] = {}
    places: dict[str, str] = {}
    told = []
    for path in sorted(folder.glob("*.safetensors")):
        shapes, problem = safetensors_header(path, WEIGHTS)
        if problem:
            told.append(f"{path.name}: {problem}")
        told += [
            f"{path.name}: tensor {name} is in {places[name]} too"
            for name in shapes
            if name in found
        ]
        found |= shapes
        places |= dict.fromkeys(shapes, path.name)
    if told:
        return told
    wanted = checkpoint_shapes(read_json(folder / "config.json"))
    told += [f"tensor {name} is missing" for name in wanted if name not in found]
    told += [
        f"tensor {name} is not called for by config.json" for name in found if name not in wanted
    ]
    told += [
        f"tensor {name} has shape {found[name]}, config.json calls for {shape}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    index = folder / "model.safetensors.index.json"
    if index.exists() and read_json(index)["weight_map"] != places:
        told.append(f"{index.name}: weight_map does not say where the tensors are")
    elif not index.exists() and len(set(places.values())) > 1:
        told.append(
            f"{index.name} is missing, and the weights are in {len(set(places.values()))} files"
        )
    return told


def weights_problems(folder: Path) -> list[str]:
    """checkpoint_tensors_follow_config, for a folder that may hold anything. Raises OSError if a file cannot be read."""
    try:
        return checkpoint_tensors_follow_config(folder)
    except _TOO_BROKEN as error:
        return [f"{type(error).__name__}: {error}"]


def checkpoint_shapes(config: dict[str, Any]) -> dict[str, list[int]]:
    """Tensor names and shapes of a Llama, Qwen3 or Qwen3-MoE checkpoint, as transformers names them."""
    D, V, F = (
        _size(config, "hidden_size"),
        _size(config, "vocab_size"),
        _size(config, "intermediate_size"),
    )
    H, K = _size(config, "num_attention_heads"), _size(config, "num_key_value_heads")
    N = config.get("head_dim") or D // H
    kind = config["model_type"]
    if kind not in ("llama", "qwen3", "qwen3_moe"):
        raise ValueError(f"model_type {kind!r} is none of llama, qwen3, qwen3_moe")
    shapes: dict[str, list[int]] = {"model.embed_tokens.weight": [V, D], "model.norm.weight": [D]}
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = [V, D]
    layers = _size(config, "num_hidden_layers", MOST_LAYERS)
    for layer in range(layers):
        at = f"model.layers.{layer}."
        shapes |= {
            at + "input_layernorm.weight": [D],
            at + "post_attention_layernorm.weight": [D],
            at + "self_attn.q_proj.weight": [H * N, D],
            at + "self_attn.k_proj.weight": [K * N, D],
            at + "self_attn.v_proj.weight": [K * N, D],
            at + "self_attn.o_proj.weight": [D, H * N],
        }
        if kind != "llama":
            shapes |= {at + "self_attn.q_norm.weight": [N], at + "self_attn.k_norm.weight": [N]}
        if kind == "qwen3_moe":
            M, E = (
                _size(config, "moe_intermediate_size"),
                _size(config, "num_experts", MOST_EXPERTS // layers),
            )
            shapes[at + "mlp.gate.weight"] = [E, D]
            for expert in range(E):
                shapes |= _mlp(f"{at}mlp.experts.{expert}.", D, M)
        else:
            shapes |= _mlp(at + "mlp.", D, F)
    return shapes


def checkpoint_vocabulary_matches_tokenizer(folder: Path) -> list[str]:
    size, vocabulary = (
        read_json(folder / "config.json")["vocab_size"],
        _vocabulary(read_json(folder / "tokenizer.json")),
    )
    if len(vocabulary) > size:
        return [f"the tokenizer has {len(vocabulary)} tokens, the model {size}"]
    beyond = [
        token
        for token, number in vocabulary.items()
        if type(number) is not int or not 0 <= number < size
    ]
    return [
        f"tokenizer.json: the id of {token[:40]!r} is none of the model's 0..{size - 1}"
        for token in beyond[:1]
    ]


def gguf_header_is_readable(folder: Path) -> list[str]:
    """Header, tensor table and length of each file fit together: a cut file is found without loading it."""
    return [
        f"{path.name}: {problem}"
        for path in sorted(folder.glob("*.gguf"))
        if (problem := gguf_problem(path))
    ]


RULES: dict[str, Callable[[Path], list[str]]] = {
    rule.__name__: rule
    for rule in (
        tokenizer_is_byte_level_bpe,
        tokenizer_has_special_tokens,
        tokens_below_vocabulary,
        checkpoint_tensors_follow_config,
        checkpoint_vocabulary_matches_tokenizer,
        gguf_header_is_readable,
    )
}

READ_TABLES = (tokens_below_vocabulary,)  # as long as the tables are


def _mlp(at: str, width: int, inner: int) -> dict[str, list[int]]:
    return {
        at + "gate_proj.weight": [inner, width],
        at + "up_proj.weight": [inner, width],
        at + "down_proj.weight": [width, inner],
    }


def _size(config: dict[str, Any], key: str, most: int = 2**31) -> int:
    value = config.get(key)
    if type(value) is not int or not 0 < value <= most:
        raise ValueError(f"config.json: {key} is {value!r}, wanted 1..{most}")
    return value


def _vocabulary(tokenizer: dict[str, Any]) -> dict[str, int]:
    return tokenizer["model"]["vocab"] | {
        token["content"]: token["id"] for token in tokenizer["added_tokens"]
    }


def _content(token: Any) -> str | None:
    return token["content"] if isinstance(token, dict) else token


def _texts(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*map(_texts, value.values()))
    if isinstance(value, list):
        return set().union(*map(_texts, value))
    return {value} if isinstance(value, str) else set()


def _byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes in byte-level BPE (GPT-2): printable ones for themselves, others from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(0x100 + n) for n in range(len(others))]
