"""What a tokenizer.json may hold: byte-level BPE as in Llama 3, and nothing that may never end.

A tokenizer.json is a small program. It can hold patterns that backtrack endlessly, normalizers that
multiply text, and padding to any length. The tokenizers that groundup makes need none of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_STEPS = {"Sequence", "Split", "ByteLevel"}  # of the pre-tokenizer
_DECODERS = {"ByteLevel"}
_PROCESSORS = {"ByteLevel", "TemplateProcessing"}
_SHOWN = 60  # characters of a value in a message


def surprises(tokenizer: dict[str, Any]) -> list[str]:
    """Return what in a tokenizer.json is not byte-level BPE with Llama 3's split pattern.

    Args:
        tokenizer: The content of the file.

    Returns:
        A phrase for each such thing, for a message.
    """
    model = tokenizer.get("model") or {}
    found = []
    if model.get("type", "BPE") != "BPE":
        found.append(f"a model of type {model['type']!r}")
    if model.get("dropout"):
        found.append(f"dropout {model['dropout']}: the same text would get other ids each time")
    if tokenizer.get("normalizer") is not None:
        found.append("a normalizer, which changes the text")
    found += _other_types(tokenizer, "pre_tokenizer", _STEPS)
    found += _other_types(tokenizer, "post_processor", _PROCESSORS)
    found += _other_types(tokenizer, "decoder", _DECODERS)
    for key, value in _strings(tokenizer.get("pre_tokenizer")):
        if key in ("Regex", "String") and value != LLAMA3_SPLIT:
            found.append(f"the pattern {value[:_SHOWN]!r}")
    return found


def _other_types(tokenizer: dict[str, Any], part: str, allowed: set[str]) -> list[str]:
    types = {value for key, value in _strings(tokenizer.get(part)) if key == "type"}
    return [f"a {part} of type {kind[:_SHOWN]!r}" for kind in sorted(types - allowed)]


def _strings(value: Any) -> Iterator[tuple[str, str]]:
    """Yield every string that is the value of a key, with the key."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str):
                yield key, inner
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
