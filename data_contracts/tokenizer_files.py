"""What a tokenizer.json may hold: byte-level BPE as Llama 3's, and nothing that can take for ever.

A tokenizer.json is a small program: patterns that backtrack without end, normalizers that multiply
text, padding to a length of its own choice. The tokenizers made here need none of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

LLAMA3_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

_STEPS = {"Sequence", "Split", "ByteLevel"}  # of the pre-tokenizer
_DECODERS = {"ByteLevel"}
_PROCESSORS = {"ByteLevel", "TemplateProcessing"}
_SHOWN = 60


def surprises(tokenizer: dict[str, Any]) -> list[str]:
    """What a tokenizer.json asks for beyond byte-level BPE with the split pattern of Llama 3."""
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
    patterns = [
        value
        for key, value in _strings(tokenizer.get("pre_tokenizer"))
        if key in ("Regex", "String")
    ]
    found += [
        f"the pattern {pattern[:_SHOWN]!r}" for pattern in patterns if pattern != LLAMA3_SPLIT
    ]
    return found


def _other_types(tokenizer: dict[str, Any], part: str, allowed: set[str]) -> list[str]:
    types = {value for key, value in _strings(tokenizer.get(part)) if key == "type"}
    return [f"a {part} of type {kind[:_SHOWN]!r}" for kind in sorted(types - allowed)]


def _strings(value: Any) -> Iterator[tuple[str, str]]:
    """Every string with the key that it stands under."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str):
                yield key, inner
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
