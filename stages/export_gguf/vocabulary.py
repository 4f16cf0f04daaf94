"""The tokenizer and the chat template as GGUF metadata.

Stock llama.cpp makes the same ids of the same text with them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from gguf import GGUFWriter, TokenType

from data_contracts import ArtifactError
from stages.lm.checkpoint import REBUILD, load_config, stop_ids
from stages.lm.tokenizer import ModelTokenizer
from stages.tokenizer_files import UNREADABLE

GENERATION_TAG = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")


@dataclass(frozen=True)
class Vocabulary:
    """Everything that llama.cpp needs to tokenize.

    Attributes:
        tokens: The text of each id.
        types: The type of each id.
        merges: The merges of byte-level BPE, in order.
        begin: The id before a text, if there is one.
        end: The id that ends a text.
        pad: The id of padding, if there is one.
        end_of_turn: The id that ends an answer.
        chat_template: The template in Jinja.
    """

    tokens: list[str]
    types: list[TokenType]
    merges: list[str]
    begin: int | None
    end: int
    pad: int | None
    end_of_turn: int
    chat_template: str

    def write(self, writer: GGUFWriter) -> None:
        """Write it as llama.cpp reads it.

        That is byte-level BPE ("gpt2") with the split pattern of Llama 3 ("llama-bpe").
        """
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("llama-bpe")
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        if self.begin is not None:
            writer.add_bos_token_id(self.begin)
        writer.add_eos_token_id(self.end)
        writer.add_eot_token_id(self.end_of_turn)
        if self.pad is not None:
            writer.add_pad_token_id(self.pad)
        writer.add_add_bos_token(False)  # the chat template writes it
        writer.add_add_eos_token(False)
        writer.add_chat_template(self.chat_template)


def read_vocabulary(tokenizer: ModelTokenizer) -> Vocabulary:
    """Return the vocabulary of a checkpoint.

    It comes from the tokenizer and from the generation_config.json, config.json and
    chat_template.jinja beside it. Rows of the embedding beyond the tokenizer get the name [PADi]
    and the type UNUSED.

    Args:
        tokenizer: The tokenizer of the checkpoint.

    Raises:
        ArtifactError: A file cannot be used, or the template cannot be rendered within its limits.
    """
    folder = tokenizer.folder
    template = tokenizer.chat_template()
    template.render([[{"role": "user", "content": "a"}]], prompt=True)
    ends = stop_ids(folder)
    size = load_config(folder).vocab_size
    try:
        return _vocabulary(tokenizer, size, ends, template.source)
    except UNREADABLE as error:
        why = f"its tokenizer.json cannot be exported: {type(error).__name__}: {error}"
        raise ArtifactError(f"checkpoint {folder}", why, REBUILD) from None


def _vocabulary(tokenizer: ModelTokenizer, size: int, ends: list[int], template: str) -> Vocabulary:
    # the library has no other way to its merges
    document: dict[str, Any] = json.loads(tokenizer.backend.to_str())
    by_id: dict[int, str] = {}
    kinds: dict[int, TokenType] = {}
    for token, number in document["model"]["vocab"].items():
        by_id[number] = token
        kinds[number] = TokenType.NORMAL
    for added in document["added_tokens"]:
        by_id[added["id"]] = added["content"]
        kinds[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    special = tokenizer.special_ids
    end = special["eos_token_id"]
    if end is None:
        if not ends:
            raise ValueError(
                "no token ends a text: "
                "neither tokenizer_config.json nor generation_config.json names one"
            )
        end = ends[0]
    merges = document["model"]["merges"]
    return Vocabulary(
        tokens=[by_id.get(number, f"[PAD{number}]") for number in range(size)],
        types=[kinds.get(number, TokenType.UNUSED) for number in range(size)],
        merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in merges],
        begin=special["bos_token_id"],
        end=end,
        pad=special["pad_token_id"],
        end_of_turn=next((number for number in ends if number != end), end),
        chat_template=without_generation_marks(template),
    )


def without_generation_marks(template: str) -> str:
    """Return the template without its `{% generation %}` blocks, which only transformers knows.

    `if true` replaces `generation`: it prints the same and keeps the tag's control of white space.
    """
    return GENERATION_TAG.sub(_plain_tag, template)


def _plain_tag(tag: re.Match[str]) -> str:
    keyword = "endif" if tag[2] else "if true"
    return f"{{%{tag[1]} {keyword} {tag[3]}%}}"
