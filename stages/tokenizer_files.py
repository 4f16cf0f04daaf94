"""Loads the tokenizer of a checkpoint or tokenizer artifact. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from data_contracts import ArtifactError
from data_contracts.foreign_text import brief
from data_contracts.json_files import read_json
from data_contracts.tokenizer_rules import surprises

REBUILD = "make the tokenizer again: groundup stage train_tokenizer"
MAX_SETTINGS_BYTES = 16 << 20  # of a tokenizer_config.json
UNREADABLE = (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError)
SHOWN_ERROR = 300  # characters


def load(path: Path, what: str) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json. It never pads or truncates, whatever the file says.

    Args:
        path: The file.
        what: What it belongs to, for messages.

    Raises:
        ArtifactError: The file cannot be read, or asks for something that tokenizers made here
            never need and that may take for ever: other patterns, normalizers or models.
    """
    try:
        found = surprises(read_json(path))
        if found:
            raise ValueError(f"it asks for {'; '.join(found)}")
    except UNREADABLE as error:
        raise ArtifactError(what, f"its tokenizer.json cannot be used: {error}", REBUILD) from None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        # the Rust library raises plain Exception, and its panics are not even that
        why = f"its tokenizer.json cannot be read: {str(error)[:SHOWN_ERROR]}"
        raise ArtifactError(what, why, REBUILD) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def special_tokens(folder: Path, what: str) -> dict[str, str | None]:
    """Return the texts of the special tokens that tokenizer_config.json names.

    Args:
        folder: The folder of the file.
        what: What it belongs to, for messages.

    Returns:
        {"bos_token": "<s>", "eos_token": …, "pad_token": …}; None for one that is not set.

    Raises:
        ArtifactError: The file cannot be read, or a token is not text.
    """
    keys = ("bos_token", "eos_token", "pad_token")
    try:
        settings = read_json(folder / "tokenizer_config.json", MAX_SETTINGS_BYTES)
        return {key: _text(key, settings.get(key)) for key in keys}
    except UNREADABLE as error:
        why = f"its tokenizer_config.json cannot be used: {error}"
        raise ArtifactError(what, why, REBUILD) from None


def _text(key: str, token: Any) -> str | None:
    text = token["content"] if isinstance(token, dict) else token
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{key} is {brief(text)}, which is not text")
    if text is not None:
        text.encode()  # half of a character raises UnicodeEncodeError, which is a ValueError
    return text
