"""Loads a checkpoint into the classes of transformers, for measurements independent of our model.

transformers follows many requests of a checkpoint folder: it runs Python code in it, downloads
kernels from a hub, and sets how text is generated. Here it gets settings that were read and checked
before, and reads nothing but the weights from the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from data_contracts import ArtifactError
from stages.lm.checkpoint import REBUILD, load_config, require_weights, stop_ids
from stages.lm.tokenizer import ModelTokenizer


def load(
    folder: Path, tokenizer: ModelTokenizer | None = None
) -> tuple[Any, PreTrainedTokenizerFast]:
    """Load a checkpoint.

    Args:
        folder: The checkpoint.
        tokenizer: Its tokenizer, if the caller has parsed it already.

    Returns:
        The model, in float32 on the CPU, and its tokenizer.

    Raises:
        ArtifactError: The folder is not a checkpoint that groundup supports.
    """
    settings = load_config(folder).to_checkpoint().to_json()
    require_weights(folder)
    tokenizer = tokenizer or ModelTokenizer(folder)
    fast = fast_tokenizer(tokenizer)
    stops = stop_ids(folder)
    if fast.bos_token_id is None and fast.eos_token_id is None:
        why = (
            "its tokenizer_config.json names neither bos_token nor eos_token: "
            "nothing can begin a text"
        )
        raise ArtifactError(f"checkpoint {folder}", why, REBUILD)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except Exception as error:  # transformers raises all kinds of exceptions
        why = f"transformers cannot load it: {type(error).__name__}: {str(error)[:300]}"
        raise ArtifactError(f"checkpoint {folder}", why, REBUILD) from error
    special = tokenizer.special_ids | {"eos_token_id": stops or None}
    model.generation_config = GenerationConfig(**special)
    return model.eval(), fast


def fast_tokenizer(tokenizer: ModelTokenizer) -> PreTrainedTokenizerFast:
    """Return the tokenizer for transformers: with special tokens, without the chat template."""
    named = {key: text for key, text in tokenizer.named_tokens.items() if text}
    others = [token for token in tokenizer.special_tokens if token not in named.values()]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend,
        additional_special_tokens=others,
        clean_up_tokenization_spaces=False,
        **named,
    )
