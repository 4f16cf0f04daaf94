"""The fused losses equal the plain ones, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from stages.lm import loss
from stages.lm.loss import IGNORED, row_logprobs, token_loss

Inputs = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def batch() -> Inputs:
    torch.manual_seed(0)
    labels = torch.randint(0, 97, (3, 50))
    labels[0, :20] = IGNORED
    labels[2] = IGNORED
    return (
        torch.randn(3, 50, 16, requires_grad=True),
        torch.randn(97, 16, requires_grad=True),
        labels,
    )


@pytest.mark.parametrize("chunk", [None, 7, 1000])
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_token_loss_is_cross_entropy_with_z_loss(
    batch: Inputs, z_loss: float, chunk: int | None
) -> None:
    hidden, table, labels = batch
    total, plain = token_loss(hidden, table, labels, z_loss, chunk)
    logits = hidden @ table.T
    wanted = cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=IGNORED
    )
    torch.testing.assert_close(plain, wanted.detach())
    wanted = wanted + z_loss * (logits.logsumexp(-1).square() * (labels != IGNORED)).sum()
    torch.testing.assert_close(total, wanted)
    for ours, theirs in zip(
        torch.autograd.grad(3 * total, (hidden, table)),
        torch.autograd.grad(3 * wanted, (hidden, table)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_where_all_labels_count_nothing_is_looked_for(
    batch: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, table, labels = batch
    wanted = token_loss(hidden, table, labels.clamp(min=0))
    monkeypatch.setattr(loss, "_counted", None)
    assert token_loss(hidden, table, labels.clamp(min=0), all_count=True) == wanted


def test_large_logits_do_not_overflow(batch: Inputs) -> None:
    hidden, table, labels = batch
    total, _ = token_loss(hidden * 300, table, labels)
    wanted = cross_entropy(
        (hidden * 300 @ table.T).flatten(0, 1),
        labels.flatten(),
        reduction="sum",
        ignore_index=IGNORED,
    )
    torch.testing.assert_close(total, wanted)


def test_no_gradient_is_made_where_none_is_wanted(batch: Inputs) -> None:
    with torch.no_grad():
        total, _ = token_loss(*batch)
    assert not total.requires_grad


def test_a_batch_without_counted_tokens_has_loss_zero_and_no_gradient(batch: Inputs) -> None:
    hidden, table, labels = batch
    total, _ = token_loss(hidden, table, torch.full_like(labels, IGNORED))
    total.backward()
    assert total.item() == 0
    assert hidden.grad is not None
    assert not hidden.grad.any()


@pytest.mark.parametrize("chunk", [None, 9])
def test_row_logprobs_are_sums_of_log_softmax(batch: Inputs, chunk: int | None) -> None:
    hidden, table, labels = batch
    ours = row_logprobs(hidden, table, labels, chunk)
    every = (hidden @ table.T).log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    wanted = (every * (labels != IGNORED)).sum(-1)
    torch.testing.assert_close(ours, wanted)
    assert ours[2].item() == 0
    weights = torch.tensor([1.0, -2.0, 3.0])
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), (hidden, table)),
        torch.autograd.grad((wanted * weights).sum(), (hidden, table)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_bfloat16_products_stay_near_float32(batch: Inputs) -> None:
    hidden, table, labels = batch
    exact, _ = token_loss(hidden, table, labels)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = token_loss(hidden, table, labels)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=2e-2, atol=0)
