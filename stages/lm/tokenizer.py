"""The tokenizer of a checkpoint or tokenizer artifact, parsed once.

A tokenizer.json of a large vocabulary takes seconds to parse. So a stage makes one `ModelTokenizer`
at its start and gives it to all that needs the tokenizer. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from data_contracts import Artifact
from stages import tokenizer_files
from stages.chat_templates import ChatTemplate


class ModelTokenizer:
    """A parsed tokenizer.json, with what tokenizer_config.json says about its special tokens.

    Attributes:
        folder: The folder of the files.
        what: What it belongs to, for messages.
        backend: The parsed tokenizer. It never pads or truncates.
        named_tokens: The texts of "bos_token", "eos_token" and "pad_token"; None if not set.

    Args:
        source: A checkpoint or tokenizer artifact, or its folder.

    Raises:
        ArtifactError: A file cannot be used.
    """

    def __init__(self, source: Artifact | Path):
        self.folder = folder_of(source)
        self.what = f"{source}"
        self.named_tokens = tokenizer_files.special_tokens(self.folder, self.what)
        self.backend: Tokenizer = tokenizer_files.load(self.folder / "tokenizer.json", self.what)

    @cached_property
    def special_tokens(self) -> list[str]:
        """The texts of all special tokens."""
        added = self.backend.get_added_tokens_decoder().values()
        return [token.content for token in added if token.special]

    @cached_property
    def special_ids(self) -> dict[str, int | None]:
        """The ids of the named tokens, for example {"bos_token_id": 0, …, "pad_token_id": 1}."""
        ids: dict[str, int | None] = {}
        for key, text in self.named_tokens.items():
            ids[f"{key}_id"] = self.backend.token_to_id(text) if text else None
        return ids

    @property
    def pad_id(self) -> int:
        """The id of the padding token; 0 if there is none."""
        return self.special_ids["pad_token_id"] or 0

    def chat_template(self) -> ChatTemplate:
        """Return the chat template beside the tokenizer. It may use what transformers offers it.

        Raises:
            ArtifactError: There is no template, or it cannot be read.
        """
        tokens = {key: text for key, text in self.named_tokens.items() if text}
        return ChatTemplate.of_folder(self.folder, f"chat template of {self.what}", tokens)

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """Encode texts in which special tokens are spelled out, such as rendered chats."""
        return self.backend.encode_batch(list(texts), add_special_tokens=False)


def folder_of(source: Artifact | Path) -> Path:
    """Return the folder of an artifact's files."""
    return source.path if isinstance(source, Artifact) else Path(source)
