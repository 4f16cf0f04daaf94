"""Checkpoints as transformers, vLLM and the GGUF export load them: a Hugging Face folder under the `checkpoint` contract."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from data_contracts import Artifact, ArtifactError, Draft
from data_contracts.bundles import weights_problems
from data_contracts.json_files import read_json
from data_contracts.store.artifact import sha256
from stages import tokenizer_files
from stages.lm.config import ModelConfig
from stages.lm.model import LanguageModel
from stages.lm.parallel import collectives, fsdp
from stages.tokenizer_files import MAX_SETTINGS_BYTES, UNREADABLE

AGAIN = "make the checkpoint again"
SHARD_BYTES = 5_000_000_000
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
INDEX = "model.safetensors.index.json"


def load_model(source: Artifact | Path, device: torch.device | str = "cpu") -> LanguageModel:
    """The model of a checkpoint, float32, in evaluation mode.

    Nothing is allocated before the headers of the weights say that they are what config.json calls for.
    Raises ArtifactError if the folder is not a checkpoint that this model can hold.
    """
    folder = _folder(source)
    config = load_config(folder)
    require_weights(folder)
    try:
        model = LanguageModel(config)
        weights: dict[str, Tensor] = {}
        for path in sorted(
            folder.glob("*.safetensors")
        ):  # mapped; the copies are aligned, whatever the file's header takes
            weights |= {
                name: tensor.to(torch.float32, copy=True)
                for name, tensor in load_file(path).items()
            }
        if model.config.tied_embeddings:
            weights.pop("lm_head.weight", None)  # some writers store the tied table twice
        model.load_state_dict(weights, assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise ArtifactError(
            f"checkpoint {folder}", f"its weights do not fit its config.json: {error}", AGAIN
        ) from None
    return model.to(device).eval()


def require_weights(folder: Path) -> None:
    """Raises ArtifactError unless the headers of the weights, names, types and shapes, are what config.json calls for."""
    try:
        problems = weights_problems(folder)
    except OSError as error:
        problems = [str(error)]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        why = f"its weights do not fit its config.json: {'; '.join(problems[:3])}{more}"
        raise ArtifactError(f"checkpoint {folder}", why, AGAIN)


def load_config(source: Artifact | Path) -> ModelConfig:
    """Sizes only, without the weights. Raises ArtifactError if config.json is none that the model here can have."""
    folder = _folder(source)
    try:
        return ModelConfig.from_hf(read_json(folder / "config.json", MAX_SETTINGS_BYTES))
    except UNREADABLE as error:
        raise ArtifactError(
            f"checkpoint {folder}",
            f"its config.json cannot be used: {error!r:.600}",
            "give a checkpoint",
        ) from None


def load_tokenizer(source: Artifact | Path) -> Tokenizer:
    """The tokenizer of a checkpoint or tokenizer artifact. Raises ArtifactError if it is none that can be used."""
    return tokenizer_files.load(_folder(source) / "tokenizer.json", f"{source}")


def special_tokens(source: Artifact | Path) -> dict[str, str | None]:
    """Texts of bos, eos and pad, by the names that tokenizer_config.json has for them."""
    return tokenizer_files.special_tokens(_folder(source), f"{source}")


def special_ids(source: Artifact | Path) -> dict[str, int | None]:
    """Ids of bos, eos and pad as named in tokenizer_config.json, e.g. {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}."""
    tokenizer = load_tokenizer(source)
    named = special_tokens(source)
    return {
        f"{key}_id": tokenizer.token_to_id(text) if text else None for key, text in named.items()
    }


def stop_ids(source: Artifact | Path) -> list[int]:
    """Tokens that end an answer, as generation_config.json has them; none if it names none.

    Raises ArtifactError if the file cannot be read, or names what is no token of the model.
    """
    folder = _folder(source)
    try:
        ends = read_json(folder / "generation_config.json", MAX_SETTINGS_BYTES).get("eos_token_id")
        ids = ends if isinstance(ends, list) else [] if ends is None else [ends]
        size = load_config(folder).vocab_size
        if wrong := [one for one in ids if type(one) is not int or not 0 <= one < size]:
            raise ValueError(f"eos_token_id {wrong[0]!r} is no token of {size}")
    except UNREADABLE as error:
        why = f"its generation_config.json cannot be used: {error}"
        raise ArtifactError(f"checkpoint {folder}", why, AGAIN) from None
    return ids


def write_checkpoint(
    out: Draft,
    model: LanguageModel,
    tokenizer: Artifact | Path,
    metrics: list[dict[str, Any]],
    stop_ids: list[int] | None = None,
) -> None:
    """Fill a draft of the artifact type `checkpoint`. On several ranks all must call it; rank 0 writes.

    Weights are written in float32, in files of at most 5 GB. tokenizer: a tokenizer artifact, or the checkpoint that this one
    grew from; its files are copied. stop_ids: tokens that end an answer, for generation_config.json; default: the eos token.
    """
    weights = fsdp.full_state_dict(model)
    if not collectives.is_main_process():
        return
    special = special_ids(tokenizer)
    _write_json(out.path("config.json"), model.config.to_hf() | special)
    stop = stop_ids or [i for i in [special["eos_token_id"]] if i is not None]
    _write_json(
        out.path("generation_config.json"),
        special | {"eos_token_id": stop[0] if len(stop) == 1 else stop, "do_sample": False},
    )
    for name in TOKENIZER_FILES:
        shutil.copyfile(_folder(tokenizer) / name, out.path(name))
    _write_weights(out, weights)
    out.write("metrics", metrics)


def check_tokenizer(token_shards: Artifact, tokenizer: Artifact) -> int:
    """The vocabulary size, once it is sure that the shards were made with this tokenizer.

    Raises ArtifactError with both digests if they were not.
    """
    wanted, size = token_shards.file("tokenizer_digest").read_text("utf-8").split()
    found = sha256(tokenizer.file("tokenizer"))
    if wanted != found:
        raise ArtifactError(
            f"{token_shards} and {tokenizer}",
            f"the shards were encoded with tokenizer.json {wanted[:12]}…, this one is {found[:12]}…: the ids would mean other text",
            "give the tokenizer that pack used, or run pack again with this one",
        )
    return int(size)


def _write_weights(out: Draft, weights: Mapping[str, Tensor]) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    room = SHARD_BYTES
    for name, tensor in weights.items():
        size = tensor.numel() * 4
        if size > room and shards[-1]:
            shards.append({})
            room = SHARD_BYTES
        shards[-1][name] = tensor.detach().to("cpu", torch.float32).contiguous()
        room -= size
    if len(shards) == 1:
        save_file(shards[0], out.path("model.safetensors"), metadata={"format": "pt"})
        return
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, out.path(file), metadata={"format": "pt"})
        index |= dict.fromkeys(shard, file)
    total = sum(tensor.numel() * 4 for shard in shards for tensor in shard.values())
    _write_json(out.path(INDEX), {"metadata": {"total_size": total}, "weight_map": index})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def _folder(source: Artifact | Path) -> Path:
    return source.path if isinstance(source, Artifact) else Path(source)
