"""Checkpoints: Hugging Face folders under the `checkpoint` contract.

transformers, vLLM and the GGUF export load them as they are.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_contracts import Artifact, ArtifactError, Draft
from data_contracts.bundles import weights_problems
from data_contracts.checkpoint_config import CheckpointConfig
from data_contracts.files import sha256
from data_contracts.json_files import read_json
from stages.lm.config import ModelConfig
from stages.lm.model import LanguageModel
from stages.lm.parallel import collectives, fsdp
from stages.lm.tokenizer import ModelTokenizer, folder_of
from stages.tokenizer_files import MAX_SETTINGS_BYTES, UNREADABLE

REBUILD = "make the checkpoint again"
MAX_PROBLEMS_SHOWN = 3
SHARD_BYTES = 5_000_000_000
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
INDEX = "model.safetensors.index.json"


def load_model(source: Artifact | Path, device: torch.device | str = "cpu") -> LanguageModel:
    """Load the model of a checkpoint, in float32 and in evaluation mode.

    Nothing is allocated before the headers of the weights have been compared with config.json.

    Args:
        source: A checkpoint or its folder.
        device: Where to put the model.

    Raises:
        ArtifactError: The folder is not a checkpoint that groundup supports.
    """
    folder = folder_of(source)
    config = load_config(folder)
    require_weights(folder)
    try:
        model = LanguageModel(config)
        weights: dict[str, Tensor] = {}
        for path in sorted(folder.glob("*.safetensors")):
            # The file is memory-mapped. Copies are aligned, whatever the length of its header.
            for name, tensor in load_file(path).items():
                weights[name] = tensor.to(torch.float32, copy=True)
        if model.config.tied_embeddings:
            weights.pop("lm_head.weight", None)  # some writers store the tied table twice
        model.load_state_dict(weights, assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise ArtifactError(
            f"checkpoint {folder}", f"its weights do not fit its config.json: {error}", REBUILD
        ) from None
    return model.to(device).eval()


def require_weights(folder: Path) -> None:
    """Check that names, types and shapes in the headers of the weights agree with config.json.

    Args:
        folder: The checkpoint.

    Raises:
        ArtifactError: They do not.
    """
    try:
        problems = weights_problems(folder)
    except OSError as error:
        problems = [str(error)]
    if problems:
        shown = "; ".join(problems[:MAX_PROBLEMS_SHOWN])
        hidden = len(problems) - MAX_PROBLEMS_SHOWN
        more = f" (and {hidden} more)" if hidden > 0 else ""
        why = f"its weights do not fit its config.json: {shown}{more}"
        raise ArtifactError(f"checkpoint {folder}", why, REBUILD)


def load_config(source: Artifact | Path) -> ModelConfig:
    """Read the sizes of a checkpoint's model, without the weights.

    Args:
        source: A checkpoint or its folder.

    Raises:
        ArtifactError: groundup does not support the config.json.
    """
    folder = folder_of(source)
    try:
        return ModelConfig.from_checkpoint(CheckpointConfig.read(folder))
    except UNREADABLE as error:
        raise ArtifactError(
            f"checkpoint {folder}",
            f"its config.json cannot be used: {error!r:.600}",
            "give a checkpoint",
        ) from None


def stop_ids(source: Artifact | Path) -> list[int]:
    """Return the tokens that end an answer, according to generation_config.json.

    Args:
        source: A checkpoint or its folder.

    Returns:
        The ids; none if the file names none.

    Raises:
        ArtifactError: The file cannot be read, or names an id that is not in the vocabulary.
    """
    folder = folder_of(source)
    try:
        eos = read_json(folder / "generation_config.json", MAX_SETTINGS_BYTES).get("eos_token_id")
        size = load_config(folder).vocab_size
        if eos is None:
            ids = []
        else:
            ids = eos if isinstance(eos, list) else [eos]
        for token in ids:
            if type(token) is not int or not 0 <= token < size:
                raise ValueError(f"eos_token_id {token!r} is no token of {size}")
    except UNREADABLE as error:
        why = f"its generation_config.json cannot be used: {error}"
        raise ArtifactError(f"checkpoint {folder}", why, REBUILD) from None
    return ids


def write_checkpoint(
    out: Draft,
    model: LanguageModel,
    tokenizer: ModelTokenizer,
    metrics: list[dict[str, Any]],
    stop_ids: list[int] | None = None,
) -> None:
    """Fill a draft of the artifact type `checkpoint`. All ranks must call it; rank 0 writes.

    Weights are written in float32, in files of at most 5 GB.

    Args:
        out: The draft.
        model: The trained model.
        tokenizer: The tokenizer that the model was trained with. Its files are copied.
        metrics: Rows of the table `metrics`.
        stop_ids: Tokens that end an answer, for generation_config.json. Default: the eos token.
    """
    weights = fsdp.full_state_dict(model)
    if not collectives.is_main_process():
        return
    special = tokenizer.special_ids
    config = model.config.to_checkpoint().to_json()
    _write_json(out.path("config.json"), config | special)
    eos = special["eos_token_id"]
    default = [] if eos is None else [eos]
    stop = stop_ids or default
    eos_token_id = stop[0] if len(stop) == 1 else stop
    generation = special | {"eos_token_id": eos_token_id, "do_sample": False}
    _write_json(out.path("generation_config.json"), generation)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer.folder / name, out.path(name))
    _write_weights(out, weights)
    out.write("metrics", metrics)


def check_tokenizer(token_shards: Artifact, tokenizer: Artifact) -> int:
    """Check that token shards were made with this tokenizer.

    Args:
        token_shards: Artifact of pack.
        tokenizer: Tokenizer artifact, or a checkpoint with its tokenizer.

    Returns:
        The size of the vocabulary.

    Raises:
        ArtifactError: They were made with another one. The message gives both digests.
    """
    wanted, size = token_shards.file("tokenizer_digest").read_text("utf-8").split()
    found = sha256(tokenizer.file("tokenizer"))
    if wanted != found:
        raise ArtifactError(
            f"{token_shards} and {tokenizer}",
            f"the shards were encoded with tokenizer.json {wanted[:12]}…, this one is "
            f"{found[:12]}…: the ids would mean other text",
            "give the tokenizer that pack used, or run pack again with this one",
        )
    return int(size)


def _write_weights(out: Draft, weights: Mapping[str, Tensor]) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    bytes_left = SHARD_BYTES
    for name, tensor in weights.items():
        size = tensor.numel() * 4
        if size > bytes_left and shards[-1]:
            shards.append({})
            bytes_left = SHARD_BYTES
        shards[-1][name] = tensor.detach().to("cpu", torch.float32).contiguous()
        bytes_left -= size
    if len(shards) == 1:
        save_file(shards[0], out.path("model.safetensors"), metadata={"format": "pt"})
        return
    index: dict[str, str] = {}  # name of a tensor → file
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, out.path(file), metadata={"format": "pt"})
        index |= dict.fromkeys(shard, file)
    total = sum(tensor.numel() * 4 for tensor in weights.values())
    _write_json(out.path(INDEX), {"metadata": {"total_size": total}, "weight_map": index})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
