"""Attention in blocks, by the kernel and written out are one function."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stages.lm import attention
from stages.lm.attention import attend, visibility_bias
from stages.lm.blocked_attention import BLOCK, causal_attention

SIZES = {
    "one block": (2, 4, 4, 40, 8),
    "whole blocks": (2, 2, 2, 2 * BLOCK, 16),
    "a last block of one": (1, 2, 2, BLOCK + 1, 8),
    "grouped queries": (2, 6, 2, BLOCK + 37, 4),
}
Arguments = tuple[Tensor, Tensor, Tensor]


def arguments(size: str) -> Arguments:
    """Queries, keys and values in float64, where rounding is far below any mistake."""
    B, H, K, T, N = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(B, heads, T, N, dtype=torch.float64, generator=generator) for heads in (H, K, K)
    )
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


def bias(size: str, kind: str) -> Tensor:
    B, _, _, T, _ = SIZES[size]
    segments = torch.randint(0, 4, (B, T), generator=torch.Generator().manual_seed(1)).sort(dim=1)[
        0
    ]
    window = 9 if kind == "window" else None
    return visibility_bias(
        torch.arange(T)[None], T, window, segments if kind == "segments" else None
    ).double()


def written_out(q_BHTN: Tensor, k_BKTN: Tensor, v_BKTN: Tensor, bias_BTT: Tensor) -> Tensor:
    groups = q_BHTN.shape[1] // k_BKTN.shape[1]
    k_BHTN, v_BHTN = k_BKTN.repeat_interleave(groups, 1), v_BKTN.repeat_interleave(groups, 1)
    scores = q_BHTN @ k_BHTN.mT / q_BHTN.shape[-1] ** 0.5 + bias_BTT[:, None]
    return scores.softmax(-1) @ v_BHTN


@pytest.mark.parametrize("kind", ["causal", "segments", "window"])
@pytest.mark.parametrize("size", SIZES)
def test_blocks_give_what_the_written_out_form_gives_forward_and_backward(
    size: str, kind: str
) -> None:
    inputs = arguments(size)
    given = None if kind == "causal" else bias(size, kind)
    ours = causal_attention(*inputs, given)
    wanted = written_out(*inputs, bias(size, kind))
    torch.testing.assert_close(ours, wanted, atol=1e-12, rtol=1e-12)
    weights = torch.randn(
        ours.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    gradients = torch.autograd.grad(ours, inputs, weights)
    for mine, other in zip(gradients, torch.autograd.grad(wanted, inputs, weights), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("kind", ["causal", "segments", "window"])
def test_the_kernel_for_long_sequences_gives_the_same(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = "grouped queries"
    inputs = arguments(size)
    given = None if kind == "causal" else bias(size, kind)
    short = attend(*inputs, given)
    monkeypatch.setattr(attention, "MAX_MANUAL_TOKENS", 0)
    torch.testing.assert_close(attend(*inputs, given), short, atol=1e-12, rtol=1e-12)


def test_what_lies_above_the_diagonal_is_never_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    products: list[int] = []
    multiply = torch.bmm

    def counted(a: Tensor, b: Tensor) -> Tensor:
        products.append(a.shape[1] * b.shape[2])
        return multiply(a, b)

    monkeypatch.setattr(torch, "bmm", counted)
    with torch.no_grad():
        causal_attention(*(torch.randn(1, 1, 4 * BLOCK, 8) for _ in range(3)))
    scores = sum(products[0::2])
    assert scores == BLOCK * BLOCK * (1 + 2 + 3 + 4)
