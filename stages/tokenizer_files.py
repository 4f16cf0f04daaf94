"""Loads the tokenizer of a checkpoint or tokenizer artifact. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from data_contracts import ArtifactError
from data_contracts.json_files import read_json
from data_contracts.tokenizer_files import surprises

AGAIN = "make the tokenizer again: groundup stage train_tokenizer"
MOST_SETTINGS = 16 << 20  # bytes of a tokenizer_config.json
UNREADABLE = (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError)


def load(path: Path, what: str) -> Tokenizer:
    """The tokenizer of a tokenizer.json; it pads and cuts nothing, whatever the file says.

    Raises:
        ArtifactError: The file cannot be read, or asks for what tokenizers made here never need
            and what may take for ever: other patterns, normalizers, other models.
    """
    try:
        if found := surprises(read_json(path)):
            raise ValueError(f"it asks for {'; '.join(found)}")
    except UNREADABLE as error:
        raise ArtifactError(what, f"its tokenizer.json cannot be used: {error}", AGAIN) from None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except (KeyboardInterrupt, SystemExit):
        raise
    except (
        BaseException
    ) as error:  # the Rust library raises plain Exception, and panics are not even that
        why = f"its tokenizer.json cannot be read: {str(error)[:300]}"
        raise ArtifactError(what, why, AGAIN) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def special_tokens(folder: Path, what: str) -> dict[str, str | None]:
    """Texts of bos, eos and pad as named in tokenizer_config.json, e.g. {"bos_token": "<s>", …}.

    Raises:
        ArtifactError: The file cannot be read, or names what is no text.
    """
    try:
        settings = read_json(folder / "tokenizer_config.json", MOST_SETTINGS)
        return {
            key: _text(key, settings.get(key)) for key in ("bos_token", "eos_token", "pad_token")
        }
    except UNREADABLE as error:
        why = f"its tokenizer_config.json cannot be used: {error}"
        raise ArtifactError(what, why, AGAIN) from None


def _text(key: str, token: Any) -> str | None:
    text = token["content"] if isinstance(token, dict) else token
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{key} is {text!r}, no text")
    return text
