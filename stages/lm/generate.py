"""Text from a model: batched, with a key-value cache. A row's answer does not depend on which rows share its batch.

Shapes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from data_contracts import InputError
from stages.digests import seed_for
from stages.lm.attention import KeyValueCache
from stages.lm.model import LanguageModel


@torch.inference_mode()
def generate(
    model: LanguageModel, prompts: Sequence[Sequence[int]], *, max_new_tokens: int = 128, stop: Collection[int] = (),
    temperature: float = 0.0, top_p: float = 1.0, seed: int = 0, batch_size: int = 32, heard: Callable[[int], None] = lambda done: None,
) -> list[list[int]]:  # fmt: skip
    """The continuation of each prompt, without the prompt and without the stop token.

    A row ends at a token of `stop`, after `max_new_tokens`, or when the context is full. temperature 0 is greedy; otherwise
    row n draws from its own generator, seeded by (seed, n), among the fewest tokens whose probabilities reach top_p.
    heard: is told at every batch how many prompts are answered by then.
    Raises InputError if a prompt is empty or leaves no room in the context.
    """
    for number, prompt in enumerate(prompts):
        if not 0 < len(prompt) < model.config.context:
            fix = "shorten it" if prompt else "give it text"
            raise InputError(
                f"prompt {number}",
                f"has {len(prompt)} tokens; the model takes 1 to {model.config.context - 1}",
                fix,
            )
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(
        range(len(prompts)), key=lambda n: len(prompts[n])
    )  # rows of like length share a batch: less padding
    for start in range(0, len(order), batch_size):
        heard(start)
        _fill(
            model,
            prompts,
            answers,
            order[start : start + batch_size],
            max_new_tokens,
            frozenset(stop),
            temperature,
            top_p,
            seed,
        )
    return answers


def _fill(
    model: LanguageModel, prompts: Sequence[Sequence[int]], answers: list[list[int]], rows: list[int],
    max_new_tokens: int, stop: frozenset[int], temperature: float, top_p: float, seed: int,
) -> None:  # fmt: skip
    device = model.head_weight.device
    length_B = torch.tensor([len(prompts[n]) for n in rows])
    longest = int(length_B.max())
    cache = KeyValueCache(
        model.config,
        len(rows),
        min(model.config.context, longest + max_new_tokens),
        model.head_weight,
    )
    ids_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    for row, number in enumerate(rows):
        ids_BT[row, : len(prompts[number])] = torch.tensor(prompts[number])
    last_B = (length_B - 1).to(device)
    generators = (
        {n: torch.Generator().manual_seed(seed_for(seed, "sample", n)) for n in rows}
        if temperature
        else {}
    )

    def after_prompt(hidden_BTD: Tensor, weight_VD: Tensor) -> Tensor:
        return hidden_BTD[torch.arange(len(last_B), device=device), last_B] @ weight_VD.T

    def after_token(hidden_B1D: Tensor, weight_VD: Tensor) -> Tensor:
        return hidden_B1D[:, 0] @ weight_VD.T

    logits_BV = model(ids_BT.to(device), after_prompt, cache=cache).float()
    cache.length_B = length_B
    for _ in range(max_new_tokens):
        chosen = _choose(
            logits_BV, temperature, top_p, [generators[n] for n in rows] if temperature else []
        )
        going = []
        for place, (number, token) in enumerate(zip(rows, chosen, strict=True)):
            if token in stop:
                continue
            answers[number].append(token)
            if (
                len(answers[number]) < max_new_tokens
                and int(cache.length_B[place]) < model.config.context
            ):
                going.append(place)
        if not going:
            return
        if len(going) < len(rows):
            cache.keep(going)
            rows, chosen = [rows[p] for p in going], [chosen[p] for p in going]
        logits_BV = model(
            torch.tensor(chosen, device=device)[:, None], after_token, cache=cache
        ).float()


def _choose(
    logits_BV: Tensor, temperature: float, top_p: float, generators: list[torch.Generator]
) -> list[int]:
    """One token per row: the likeliest, or a draw by the inverse of the distribution function."""
    if not temperature:
        return logits_BV.argmax(-1).tolist()
    probability_BV, order_BV = (
        (logits_BV / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    )
    reached_BV = probability_BV.double().cumsum(-1)
    last_B1 = ((reached_BV - probability_BV) < top_p).sum(-1, keepdim=True) - 1
    drawn_B1 = torch.stack(
        [torch.rand(1, generator=own, dtype=torch.float64) for own in generators]
    ).to(reached_BV.device)
    place_B1 = torch.searchsorted(reached_BV, drawn_B1 * reached_BV.gather(1, last_B1), right=True)
    return order_BV.gather(1, place_B1.minimum(last_B1))[:, 0].tolist()
