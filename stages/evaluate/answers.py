"""Sample answers for a person to read: greedy, through the chat template."""

from __future__ import annotations

from typing import Any

import torch


@torch.inference_mode()
def greedy_answer(
    model: Any, tokenizer: Any, prompt: str, ids: list[int], new_tokens: int, length: int
) -> dict[str, Any]:
    """Answer one prompt.

    Args:
        model: A causal language model of transformers.
        tokenizer: Its tokenizer.
        prompt: What the user says.
        ids: The tokens that the chat template makes of the prompt.
        new_tokens: The longest answer, in tokens.
        length: The context of the model, in tokens.

    Returns:
        {"prompt", "answer", "ended"}. `ended` says whether the model wrote a stop token before
        it reached `new_tokens` or the end of its context.
    """
    max_tokens = min(new_tokens, length - len(ids))
    if max_tokens <= 0:
        return {"prompt": prompt, "answer": None, "ended": False}
    generated = model.generate(
        torch.tensor([ids], device=model.device),
        do_sample=False,
        max_new_tokens=max_tokens,
        pad_token_id=tokenizer.pad_token_id,
    )
    new_ids = generated[0, len(ids) :].tolist()
    stops = model.generation_config.eos_token_id
    if not isinstance(stops, list):
        stops = [stops]
    return {
        "prompt": prompt,
        "answer": tokenizer.decode(new_ids, skip_special_tokens=True).strip(),
        "ended": bool(new_ids) and new_ids[-1] in stops,
    }
