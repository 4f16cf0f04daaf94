"""Rules for artifacts that are files: which must exist, and what must be true of them.

A contract names its rules. Each is a function here, from the artifact's folder to a list of
problems. None needs torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.checkpoint_config import CheckpointConfig
from data_contracts.checkpoint_shapes import checkpoint_shapes
from data_contracts.files import is_file, is_plain, listing, matches
from data_contracts.json_files import read_json
from data_contracts.tensor_files import gguf_problem, safetensors_header
from data_contracts.tokenizer_rules import LLAMA3_SPLIT

if TYPE_CHECKING:
    from data_contracts.contract import Contract

__all__ = ["LLAMA3_SPLIT", "RULES", "problems", "weights_problems"]

# The data types that the tensors of a checkpoint may have.
WEIGHTS = ("F64", "F32", "F16", "BF16")
_TOO_BROKEN = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)


def problems(
    contract: Contract, folder: Path, ignore: str | None = None, reads_tables: bool = True
) -> list[str]:
    """Return required files that are missing, files that no rule allows, and broken rules.

    Args:
        contract: The contract.
        folder: The artifact's folder.
        ignore: One path that is not part of the content.
        reads_tables: Whether to apply the rules that read whole tables.
    """
    present = [path for path in listing(folder) if path != ignore]
    found = _file_problems(contract, folder, present)
    if found:
        return found
    for name in contract.rules:
        rule = RULES[name]
        if rule in READ_TABLES and not reads_tables:
            continue
        try:
            found += rule(folder)
        except _TOO_BROKEN as error:  # the rule does not get as far as a problem
            found.append(f"{name}: {type(error).__name__}: {error}")
    return found


def _file_problems(contract: Contract, folder: Path, present: list[str]) -> list[str]:
    found = [
        f"file {rule.glob} is missing"
        for rule in contract.files
        if rule.required and not any(map(rule.matches, present))
    ]
    allowed = [rule.glob for rule in contract.files]
    allowed += [f"{table}/*.parquet" for table in contract.tables]

    def is_allowed(path: str) -> bool:
        return any(matches(path, glob) for glob in allowed)

    found += [f"file {path} is not in the contract" for path in present if not is_allowed(path)]
    found += [
        f"file {path!r} is not a plain file with a plain name"
        for path in present
        if not (is_file(folder / path) and is_plain(path))
    ]
    return found


def tokenizer_is_byte_level_bpe(folder: Path) -> list[str]:
    """Check for byte-level BPE with the split pattern of Llama 3 and ids from 0."""
    tokenizer = read_json(folder / "tokenizer.json")
    model = tokenizer["model"]
    found = []
    if model["type"] != "BPE":
        found.append(f"tokenizer.json: model is {model['type']}, wanted BPE")
    if LLAMA3_SPLIT not in _texts(tokenizer["pre_tokenizer"]):
        found.append(
            "tokenizer.json: the split pattern is not that of Llama 3, "
            "which llama.cpp calls llama-bpe"
        )
    ids = sorted(_vocabulary(tokenizer).values())
    if ids != list(range(len(ids))):
        found.append("tokenizer.json: ids are not 0..n-1")
    if len(set(model["vocab"]) & set(_byte_alphabet())) != 256:
        found.append("tokenizer.json: not every byte has a token, some text could not be encoded")
    return found


def tokenizer_has_special_tokens(folder: Path) -> list[str]:
    """Check that the tokens that begin, end and pad a text are special tokens of the tokenizer."""
    tokenizer = read_json(folder / "tokenizer.json")
    settings = read_json(folder / "tokenizer_config.json")
    special = {token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    named = {key: _content(settings.get(key)) for key in ("bos_token", "eos_token", "pad_token")}
    return [
        f"tokenizer_config.json: {key} {value!r} is not a special token"
        for key, value in named.items()
        if value not in special
    ]


def tokens_below_vocabulary(folder: Path) -> list[str]:
    """Check that every token id in every table is smaller than the size of the vocabulary."""
    words = (folder / "tokenizer.sha256").read_text("utf-8").split()
    if len(words) != 2 or len(words[0]) != 64 or not words[1].isdecimal():
        return ["tokenizer.sha256: wanted '<sha256 of tokenizer.json> <vocabulary size>'"]
    found = []
    for path in sorted(folder.glob("*/*.parquet")):
        with pq.ParquetFile(path) as file:
            if "tokens" not in file.schema_arrow.names:
                continue  # the check of the schema reports it
            for group in range(file.num_row_groups):
                largest = _largest_token(file, group)
                if largest >= int(words[1]):
                    found.append(
                        f"{path.parent.name}/{path.name} row group {group}: "
                        f"token id {largest}, the vocabulary has {words[1]}"
                    )
    return found


def _largest_token(file: pq.ParquetFile, group: int) -> int:
    """Return the largest token id in a row group, or 0 if it has none."""
    tokens = file.read_row_group(group, ["tokens"]).column("tokens")
    largest = [pc.max(chunk.flatten()).as_py() or 0 for chunk in tokens.chunks]
    return max(largest, default=0)


def checkpoint_tensors_follow_config(folder: Path) -> list[str]:
    """Check that the safetensors headers have the names and shapes of config.json.

    Sharded files have an index.
    """
    shapes: dict[str, list[int]] = {}
    file_of: dict[str, str] = {}
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        in_file, problem = safetensors_header(path, WEIGHTS)
        if problem:
            found.append(f"{path.name}: {problem}")
        found += [
            f"{path.name}: tensor {name} is in {file_of[name]} too"
            for name in in_file
            if name in shapes
        ]
        shapes |= in_file
        file_of |= dict.fromkeys(in_file, path.name)
    if found:
        return found
    wanted = checkpoint_shapes(CheckpointConfig.read(folder))
    return _shape_problems(shapes, wanted) + _index_problems(folder, file_of)


def _shape_problems(shapes: dict[str, list[int]], wanted: dict[str, list[int]]) -> list[str]:
    found = [f"tensor {name} is missing" for name in wanted if name not in shapes]
    found += [
        f"tensor {name} is not called for by config.json" for name in shapes if name not in wanted
    ]
    found += [
        f"tensor {name} has shape {shapes[name]}, config.json calls for {shape}"
        for name, shape in wanted.items()
        if name in shapes and shapes[name] != shape
    ]
    return found


def _index_problems(folder: Path, file_of: dict[str, str]) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        if read_json(index)["weight_map"] != file_of:
            return [f"{index.name}: weight_map does not say where the tensors are"]
        return []
    files = len(set(file_of.values()))
    return [f"{index.name} is missing, and the weights are in {files} files"] if files > 1 else []


def weights_problems(folder: Path) -> list[str]:
    """Do what `checkpoint_tensors_follow_config` does, for a folder that may hold anything.

    Raises:
        OSError: A file cannot be read.
    """
    try:
        return checkpoint_tensors_follow_config(folder)
    except _TOO_BROKEN as error:
        return [f"{type(error).__name__}: {error}"]


def checkpoint_vocabulary_matches_tokenizer(folder: Path) -> list[str]:
    """Check that every token of the tokenizer has a row in the embedding of the model."""
    try:
        size = CheckpointConfig.read(folder).vocab_size
    except ValueError:
        return []  # checkpoint_tensors_follow_config reports it
    vocabulary = _vocabulary(read_json(folder / "tokenizer.json"))
    if len(vocabulary) > size:
        return [f"the tokenizer has {len(vocabulary)} tokens, the model {size}"]
    for token, number in vocabulary.items():
        if type(number) is not int or not 0 <= number < size:
            return [
                f"tokenizer.json: the id of {token[:40]!r} is none of the model's 0..{size - 1}"
            ]
    return []


def gguf_header_is_readable(folder: Path) -> list[str]:
    """Check that header, tensor table and length of each file agree.

    So a file that was cut is found without loading it.
    """
    found = []
    for path in sorted(folder.glob("*.gguf")):
        problem = gguf_problem(path)
        if problem:
            found.append(f"{path.name}: {problem}")
    return found


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

READ_TABLES = (tokens_below_vocabulary,)  # rules that take time in proportion to the tables


def _vocabulary(tokenizer: dict[str, Any]) -> dict[str, int]:
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    return tokenizer["model"]["vocab"] | added


def _content(token: Any) -> str | None:
    return token["content"] if isinstance(token, dict) else token


def _texts(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*map(_texts, value.values()))
    if isinstance(value, list):
        return set().union(*map(_texts, value))
    return {value} if isinstance(value, str) else set()


def _byte_alphabet() -> list[str]:
    """Return the 256 characters that stand for bytes in byte-level BPE, as in GPT-2.

    Printable characters stand for themselves, and those from U+0100 for the other bytes.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(0x100 + n) for n in range(len(others))]
