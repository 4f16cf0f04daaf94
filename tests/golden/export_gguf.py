"""A tiny llama, exported twice."""

from __future__ import annotations

from typing import Any

from tests.checkpoints import tiny_checkpoint

SETTINGS: dict[str, Any] = {
    "quantizations": ["F16", "Q8_0"],
    "positions": 4,
    "new_tokens": 4,
    "prompts": ["Hello"],
    "max_kl": {"bits_8": 0.5},
}

BAD: list[tuple[dict[str, Any], str]] = [
    ({"quantizations": ["Q4_K"]}, r"export_gguf\.quantizations\.0 = 'Q4_K'"),
    (
        {"quantizations": ["Q8_0"], "positions": 4, "max_kl": {"bits_8": 1e-9}},
        r"Q8_0 file: KL\(torch \|\| llama\.cpp\) is .* the limit is 1e-09",
    ),
]


def inputs(publish: Any) -> dict[str, Any]:
    return {"checkpoint": tiny_checkpoint(publish)}
