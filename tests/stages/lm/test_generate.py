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
    assert stopped == [
        answer[: answer.index(stop)] if stop in answer else answer for answer in free
    ]
    assert stopped[0] == free[0][: free[0].index(stop)]


def test_samples_depend_on_seed_and_row_and_not_on_the_batch() -> None:
    model = tiny.model(tied_embeddings=False)
    samples = generate(model, PROMPTS, max_new_tokens=20, temperature=1.0, top_p=0.9, seed=1)
    assert samples == generate(
        model, PROMPTS, max_new_tokens=20, temperature=1.0, top_p=0.9, seed=1, batch_size=1
    )
    assert samples != generate(
        model, PROMPTS, max_new_tokens=20, temperature=1.0, top_p=0.9, seed=2
    )
    same = generate(model, [PROMPTS[0]] * 2, max_new_tokens=20, temperature=1.0, seed=1)
    assert same[0] != same[1]


def test_a_small_top_p_is_greedy() -> None:
    model = tiny.model(tied_embeddings=False)
    assert generate(model, PROMPTS, max_new_tokens=20, temperature=1.0, top_p=1e-9) == generate(
        model, PROMPTS, max_new_tokens=20
    )


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.0, 0.6), (0.5, 0.9)])
def test_samples_are_drawn_from_the_fewest_tokens_that_reach_top_p_as_often_as_these_are_likely(
    temperature: float, top_p: float
) -> None:
    model, draws = tiny.model(tied_embeddings=False, vocab_size=12), 1000
    with torch.no_grad():
        probability, order = (
            (model(torch.tensor([PROMPTS[0]]))[0, -1] / temperature)
            .softmax(-1)
            .sort(descending=True)
        )
    among = int((probability.cumsum(0) < top_p).sum()) + 1
    wanted = torch.zeros(12).index_copy(
        0, order[:among], probability[:among] / probability[:among].sum()
    )
    said = generate(
        model,
        [PROMPTS[0]] * draws,
        max_new_tokens=1,
        temperature=temperature,
        top_p=top_p,
        batch_size=draws,
    )
    found = torch.bincount(torch.tensor(said)[:, 0], minlength=12) / draws
    assert 2 <= among <= 12
    assert not found[wanted == 0].any()
    assert (
        (found - wanted).abs() <= 4 * (wanted * (1 - wanted) / draws).sqrt()
    ).all()  # four standard deviations


def test_a_row_ends_when_the_context_is_full() -> None:
    model = tiny.model(tied_embeddings=False)
    answers = generate(model, [[1] * 60, [2]], max_new_tokens=100)
    assert [len(answer) for answer in answers] == [5, 64]  # the model does not read the last token


@pytest.mark.parametrize(("prompt", "fix"), [([], "give it text"), ([1] * 64, "shorten it")])
def test_a_prompt_that_is_empty_or_fills_the_context_is_refused(
    prompt: list[int], fix: str
) -> None:
    with pytest.raises(
        InputError, match=rf"prompt 1: has {len(prompt)} tokens; the model takes 1 to 63\n.*{fix}"
    ):
        generate(tiny.model(), [[1], prompt])
