"""Sample answers for a person to read: greedy, through the chat template."""

from __future__ import annotations

from typing import Any

import torch


@torch.inference_mode()
def greedy_answer(
    model: Any, tokenizer: Any, prompt: str, ids: list[int], new_tokens: int, length: int
) -> dict[str, Any]:
    """{"prompt", "answer", "ended"}; ended: the model stopped by itself, before new_tokens and the end of its context.

    ids: what the chat template makes of the prompt.
    """
    room = min(new_tokens, length - len(ids))
    if room <= 0:
        return {"prompt": prompt, "answer": None, "ended": False}
    settings = {"do_sample": False, "max_new_tokens": room, "pad_token_id": tokenizer.pad_token_id}
    made = model.generate(torch.tensor([ids], device=model.device), **settings)[
        0, len(ids) :
    ].tolist()
    stops = model.generation_config.eos_token_id
    ended = bool(made) and made[-1] in (stops if isinstance(stops, list) else [stops])
    return {
        "prompt": prompt,
        "answer": tokenizer.decode(made, skip_special_tokens=True).strip(),
        "ended": ended,
    }
