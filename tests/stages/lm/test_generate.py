"""Generation with a cache, in batches, equals generation without either."""

from __future__ import annotations

import pytest
import torch

from data_contracts import InputError
from stages.lm.generate import generate
from stages.lm.model import LanguageModel
from tests.stages.lm import tiny

PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11], [12, 13]]


def one_by_one(model: LanguageModel, prompt: list[int], count: int) -> list[int]:
    """Greedy, with the whole text read again for each token."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.slow
@pytest.mark.parametrize("shape", tiny.SHAPES.values(), ids=tiny.SHAPES)
def test_cache_and_batch_do_not_change_greedy_text(shape: dict) -> None:
    model = tiny.model(**shape | {"tied_embeddings": False})
    wanted = [one_by_one(model, prompt, 30) for prompt in PROMPTS]
    assert generate(model, PROMPTS, max_new_tokens=30) == wanted
    assert generate(model, PROMPTS, max_new_tokens=30, batch_size=2) == wanted
    assert max(len(set(answer)) for answer in wanted) > 3


def test_a_stop_token_ends_its_row_only_and_is_not_given() -> None:
    model = tiny.model(tied_embeddings=False)
    free = generate(model, PROMPTS, max_new_tokens=30)
    stop = free[0][5]
    stopped = generate(model, PROMPTS, max_new_tokens=30, stop=[stop])
    assert stopped == [answer[: answer.index(stop)] if stop in answer else answer for answer in free]
    assert stopped[0] == free[0][: free[0].index(stop)]


def test_samples_depend_on_seed_and_row_and_not_on_the_batch() -> None:
    model = tiny.model(tied_embeddings=False)
    samples = generate(model, PROMPTS, max_new_tokens=20, temperature=1.0, top_p=0.9, seed=1)
    assert samples == generate(model, PROMPTS, max_new_tokens=20, temperature=1.0, top_p=0.9, seed=1, batch_size=1)
    assert samples != generate(model, PROMPTS, max_new_tokens=20, temperature=1.0, top_p=0.9, seed=2)
    same = generate(model, [PROMPTS[0]] * 2, max_new_tokens=20, temperature=1.0, seed=1)
    assert same[0] != same[1]


def test_a_small_top_p_is_greedy() -> None:
    model = tiny.model(tied_embeddings=False)
    assert generate(model, PROMPTS, max_new_tokens=20, temperature=1.0, top_p=1e-9) == generate(model, PROMPTS, max_new_tokens=20)


def test_a_row_ends_when_the_context_is_full() -> None:
    model = tiny.model(tied_embeddings=False)
    answers = generate(model, [[1] * 60, [2]], max_new_tokens=100)
    assert [len(answer) for answer in answers] == [5, 64]  # the last token needs no place


@pytest.mark.parametrize("prompt", [[], [1] * 64])
def test_a_prompt_that_is_empty_or_fills_the_context_is_refused(prompt: list[int]) -> None:
    with pytest.raises(InputError, match=f"prompt 1: has {len(prompt)} tokens; the model takes 1 to 63"):
        generate(tiny.model(), [[1], prompt])
