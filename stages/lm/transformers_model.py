"""A checkpoint in the classes of transformers, for measurements that must not depend on our own.

transformers does much that a folder asks for: it runs Python that comes with a model, takes kernels
from a hub, sets how text is made. Here it is given settings that were read and checked before, and
of the folder's files it reads the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from data_contracts import ArtifactError
from stages.lm.checkpoint import (
    AGAIN,
    load_config,
    load_tokenizer,
    require_weights,
    special_ids,
    special_tokens,
    stop_ids,
)


def load(folder: Path) -> tuple[Any, PreTrainedTokenizerFast]:
    """(model in float32 on the CPU, tokenizer).

    Raises:
        ArtifactError: The folder is no checkpoint that a model here can be.
    """
    settings = load_config(folder).to_hf()
    require_weights(folder)
    tokenizer = load_fast_tokenizer(folder)
    stops = stop_ids(folder)
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        why = (
            "its tokenizer_config.json names neither bos_token nor eos_token: nothing begins a text"
        )
        raise ArtifactError(f"checkpoint {folder}", why, AGAIN)
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
    except Exception as error:  # transformers raises what it likes
        why = f"transformers cannot load it: {type(error).__name__}: {str(error)[:300]}"
        raise ArtifactError(f"checkpoint {folder}", why, AGAIN) from error
    made = special_ids(folder) | {"eos_token_id": stops or None}
    model.generation_config = GenerationConfig(**made)
    return model.eval(), tokenizer


def load_fast_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint, with its special tokens, and without a chat template."""
    words = load_tokenizer(folder)
    named = {key: text for key, text in special_tokens(folder).items() if text}
    special = [
        token.content for token in words.get_added_tokens_decoder().values() if token.special
    ]
    others = [token for token in special if token not in named.values()]
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        additional_special_tokens=others,
        clean_up_tokenization_spaces=False,
        **named,
    )
