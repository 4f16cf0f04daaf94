"""Text from a model: batched, with a key-value cache.

An answer does not depend on the prompts that share its batch.
Shapes: B rows, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from data_contracts import InputError
from stages.digests import seed_for
from stages.lm.attention import KeyValueCache
from stages.lm.model import LanguageModel

T = TypeVar("T")


@dataclass(frozen=True)
class _Sampling:
    """How an answer goes on and where it ends; see `generate`."""

    max_new_tokens: int
    stop: frozenset[int]
    temperature: float
    top_p: float
    seed: int


@torch.inference_mode()
def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 128,
    stop: Collection[int] = (),
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 32,
    on_batch: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """Continue each prompt until a stop token, `max_new_tokens`, or the end of the context.

    Args:
        model: The model.
        prompts: Token ids, each prompt shorter than the context.
        max_new_tokens: Where a continuation is cut.
        stop: Tokens that end a continuation.
        temperature: 0 chooses the likeliest token. Otherwise prompt n samples from its own
            generator, seeded by (seed, n).
        top_p: Sample among the fewest tokens whose probabilities reach this sum.
        seed: Seed of the generators.
        batch_size: Prompts of one batch.
        on_batch: Called before every batch with the number of prompts answered so far.

    Returns:
        The new tokens of each prompt, without the stop token.

    Raises:
        InputError: A prompt is empty, or fills the context.
    """
    _check_prompts(prompts, model.config.context)
    sampling = _Sampling(max_new_tokens, frozenset(stop), temperature, top_p, seed)
    answers: list[list[int]] = [[] for _ in prompts]
    # Prompts of similar length share a batch, which needs less padding.
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    for start in range(0, len(order), batch_size):
        if on_batch:
            on_batch(start)
        numbers = order[start : start + batch_size]
        _answer_batch(model, prompts, answers, numbers, sampling)
    return answers


def _check_prompts(prompts: Sequence[Sequence[int]], context: int) -> None:
    for number, prompt in enumerate(prompts):
        if 0 < len(prompt) < context:
            continue
        raise InputError(
            f"prompt {number}",
            f"has {len(prompt)} tokens; the model takes 1 to {context - 1}",
            "shorten it" if prompt else "give it text",
        )


def _answer_batch(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    answers: list[list[int]],
    numbers: list[int],
    sampling: _Sampling,
) -> None:
    """Fill the answers to the prompts with these numbers."""
    device = model.head_weight.device
    context = model.config.context
    ids_BT, length_B = _padded([prompts[number] for number in numbers])
    capacity = min(context, ids_BT.shape[1] + sampling.max_new_tokens)
    cache = KeyValueCache(model.config, len(numbers), capacity, model.head_weight)
    generators = _generators(numbers, sampling)
    last_B = (length_B - 1).to(device)

    def after_prompt(hidden_BTD: Tensor, weight_VD: Tensor) -> Tensor:
        rows_B = torch.arange(len(last_B), device=device)
        return hidden_BTD[rows_B, last_B] @ weight_VD.T

    def after_token(hidden_B1D: Tensor, weight_VD: Tensor) -> Tensor:
        return hidden_B1D[:, 0] @ weight_VD.T

    logits_BV = model(ids_BT.to(device), after_prompt, cache=cache).float()
    cache.length_B = length_B
    for _ in range(sampling.max_new_tokens):
        chosen = _choose(logits_BV, sampling, generators)
        unfinished = []
        for row, (number, token) in enumerate(zip(numbers, chosen, strict=True)):
            if token in sampling.stop:
                continue
            answers[number].append(token)
            is_cut = len(answers[number]) >= sampling.max_new_tokens
            is_context_full = int(cache.length_B[row]) >= context
            if not is_cut and not is_context_full:
                unfinished.append(row)
        if not unfinished:
            return
        if len(unfinished) < len(numbers):
            cache.keep(unfinished)
            numbers = _kept(numbers, unfinished)
            chosen = _kept(chosen, unfinished)
            generators = _kept(generators, unfinished)
        chosen_B1 = torch.tensor(chosen, device=device)[:, None]
        logits_BV = model(chosen_B1, after_token, cache=cache).float()


def _generators(numbers: list[int], sampling: _Sampling) -> list[torch.Generator]:
    """Return one generator per prompt, seeded by its number; none for greedy text."""
    generators: list[torch.Generator] = []
    if sampling.temperature:
        for number in numbers:
            own_seed = seed_for(sampling.seed, "sample", number)
            generators.append(torch.Generator().manual_seed(own_seed))
    return generators


def _kept(values: list[T], rows: list[int]) -> list[T]:
    """Return the values of these rows; none if there are no values."""
    return [values[row] for row in rows] if values else []


def _padded(prompts: list[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return the prompts as one tensor [B, T], padded with zeros, and their lengths [B]."""
    length_B = torch.tensor([len(prompt) for prompt in prompts])
    ids_BT = torch.zeros(len(prompts), int(length_B.max()), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids_BT[row, : len(prompt)] = torch.tensor(prompt)
    return ids_BT, length_B


def _choose(logits_BV: Tensor, sampling: _Sampling, generators: list[torch.Generator]) -> list[int]:
    """Choose a token per row: the likeliest, or a sample by inversion of the distribution."""
    if not sampling.temperature:
        return logits_BV.argmax(-1).tolist()
    probability_BV = (logits_BV / sampling.temperature).softmax(-1)
    probability_BV, order_BV = probability_BV.sort(dim=-1, descending=True, stable=True)
    reached_BV = probability_BV.double().cumsum(-1)
    is_offered_BV = (reached_BV - probability_BV) < sampling.top_p
    last_B1 = is_offered_BV.sum(-1, keepdim=True) - 1
    uniform = [torch.rand(1, generator=own, dtype=torch.float64) for own in generators]
    uniform_B1 = torch.stack(uniform).to(reached_BV.device)
    target_B1 = uniform_B1 * reached_BV.gather(1, last_B1)
    rank_B1 = torch.searchsorted(reached_BV, target_B1, right=True)
    return order_BV.gather(1, rank_B1.minimum(last_B1))[:, 0].tolist()
