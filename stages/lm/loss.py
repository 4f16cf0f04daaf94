"""Cross-entropy from hidden states, in chunks: the logits of a batch never exist all at once.

Tokens that do not count are dropped first, so a conversation costs only its answers.
Shapes: B rows, T tokens, D width, V vocabulary, M counted tokens of the batch, C tokens of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stages.lm.precision import product_dtype

IGNORED = -100  # a label that does not count
BALANCE_WEIGHT = 0.01  # of the load-balancing loss (Fedus et al. 2021)
# 4 MB of float32 fit in a CPU's cache; a GPU needs large products.
CHUNK_LOGITS = {"cpu": 1 << 20, "cuda": 1 << 27}
MIN_CHUNK = 128  # tokens; smaller products are slow, whatever the vocabulary


def token_loss(
    hidden_BTD: Tensor,
    weight_VD: Tensor,
    labels_BT: Tensor,
    z_loss: float = 0.0,
    chunk: int | None = None,
    all_count: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the summed next-token loss in nats. Tokens whose label is IGNORED do not count.

    Gradients are computed in the forward pass, where the logits exist, so that nothing is computed
    twice.

    Args:
        hidden_BTD: Last hidden states.
        weight_VD: Output table.
        labels_BT: The token that should follow each.
        z_loss: Weight of the z-loss (Chowdhery et al. 2022, PaLM, section 5).
        chunk: Tokens of one chunk. Default: by device and vocabulary.
        all_count: No label is IGNORED. Looking for those would make the host wait for the device.

    Returns:
        The sum of cross-entropy + z_loss * logsumexp^2, and the sum of the cross-entropy alone,
        without gradient.
    """
    if all_count:
        x_MD, labels_M = hidden_BTD.flatten(0, 1), labels_BT.flatten()
    else:
        x_MD, labels_M, _ = _counted(hidden_BTD, labels_BT)
    with_gradient = torch.is_grad_enabled() and (x_MD.requires_grad or weight_VD.requires_grad)
    chunk = chunk or _chunk(weight_VD)
    return _FusedLinearCrossEntropy.apply(x_MD, weight_VD, labels_M, z_loss, chunk, with_gradient)


def row_logprobs(
    hidden_BTD: Tensor, weight_VD: Tensor, labels_BT: Tensor, chunk: int | None = None
) -> Tensor:
    """Return the summed log-probability of each row's counted labels, differentiable.

    The backward pass computes the logits again.

    Args:
        hidden_BTD: Last hidden states.
        weight_VD: Output table.
        labels_BT: The token that should follow each; IGNORED if it does not count.
        chunk: Tokens of one chunk. Default: by device and vocabulary.

    Returns:
        [B], in nats.
    """
    x_MD, labels_M, kept_M = _counted(hidden_BTD, labels_BT)
    logprob_M = _LinearLogprob.apply(x_MD, weight_VD, labels_M, chunk or _chunk(weight_VD))
    rows = torch.div(kept_M, labels_BT.shape[1], rounding_mode="floor")
    return logprob_M.new_zeros(labels_BT.shape[0]).index_add(0, rows, logprob_M)


def balance_loss(balance_B: Tensor, weight_B: Tensor | int) -> Tensor:
    """Return what to add to a summed loss, so that sparse models use all experts.

    It is 0 for dense models.

    Args:
        balance_B: Load-balancing loss of each row.
        weight_B: Counted tokens or pairs of each row.

    Returns:
        A scalar.
    """
    return BALANCE_WEIGHT * (weight_B * balance_B).sum()


def _counted(hidden_BTD: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return hidden states and labels of the tokens that count, and their flat indices."""
    x_MD, labels_M = hidden_BTD.flatten(0, 1), labels_BT.flatten()
    kept_M = (labels_M != IGNORED).nonzero()[:, 0]
    if len(kept_M) == len(labels_M):
        return x_MD, labels_M, kept_M
    return x_MD.index_select(0, kept_M), labels_M[kept_M], kept_M


def _chunk(weight_VD: Tensor) -> int:
    return max(MIN_CHUNK, CHUNK_LOGITS[weight_VD.device.type] // len(weight_VD))


class _FusedLinearCrossEntropy(torch.autograd.Function):
    """Output layer, cross-entropy and their gradients, all in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x_MD: Tensor,
        weight_VD: Tensor,
        labels_M: Tensor,
        z_loss: float,
        chunk: int,
        with_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        dtype = product_dtype(x_MD)
        total = x_MD.new_zeros((), dtype=torch.float32)
        plain = torch.zeros_like(total)
        minus_one = torch.full_like(total, -1.0)
        with torch.autocast(x_MD.device.type, enabled=False):
            w_VD = weight_VD.to(dtype)
            if with_gradient:
                dx_MD = torch.empty_like(x_MD)
                dw_VD = torch.zeros_like(weight_VD, dtype=torch.float32)
            # All chunks use the same memory, which stays in the CPU's cache.
            largest = min(chunk, len(x_MD))
            products_CV = x_MD.new_empty(largest, len(w_VD), dtype=dtype)
            exact_CV = products_CV
            if dtype != torch.float32:
                exact_CV = torch.empty_like(products_CV, dtype=torch.float32)
            for start in range(0, len(x_MD), chunk):
                x_CD = x_MD[start : start + chunk].to(dtype)
                label_C1 = labels_M[start : start + chunk, None]
                product_CV, logits_CV = products_CV[: len(x_CD)], exact_CV[: len(x_CD)]
                torch.mm(x_CD, w_VD.T, out=product_CV)
                logits_CV.copy_(product_CV)
                largest_C1 = logits_CV.amax(-1, keepdim=True)
                chosen_C1 = logits_CV.gather(1, label_C1)
                # In place, softmax reads each row into the cache once. The log of its sum follows
                # from the largest probability, 1 / sum: that of the label may underflow to 0.
                grad_CV = torch.softmax(logits_CV, -1, out=logits_CV)
                lse_C1 = largest_C1 - grad_CV.amax(-1, keepdim=True).log()
                plain += (lse_C1 - chosen_C1).sum()
                if z_loss:
                    total += z_loss * lse_C1.square().sum()
                if with_gradient:
                    if z_loss:
                        grad_CV *= 1 + 2 * z_loss * lse_C1
                    grad_CV.scatter_add_(1, label_C1, minus_one.expand_as(label_C1))
                    product_CV.copy_(grad_CV)
                    dx_MD[start : start + chunk] = product_CV @ w_VD
                    dw_VD += product_CV.T @ x_CD
        if with_gradient:
            ctx.save_for_backward(dx_MD, dw_VD.to(weight_VD.dtype))
        ctx.mark_non_differentiable(plain)
        return total + plain, plain

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        dx_MD, dw_VD = ctx.saved_tensors
        return dx_MD * grad.to(dx_MD.dtype), dw_VD * grad.to(dw_VD.dtype), None, None, None, None


class _LinearLogprob(torch.autograd.Function):
    """Log-probability of each label from hidden states."""

    @staticmethod
    def forward(ctx: Any, x_MD: Tensor, weight_VD: Tensor, labels_M: Tensor, chunk: int) -> Tensor:
        ctx.dtype, ctx.chunk = product_dtype(x_MD), chunk
        ctx.save_for_backward(x_MD, weight_VD, labels_M)
        with torch.autocast(x_MD.device.type, enabled=False):
            w_VD = weight_VD.to(ctx.dtype)
            parts = [x_MD.new_zeros(0, dtype=torch.float32)]
            for x_CD, label_C in zip(x_MD.split(chunk), labels_M.split(chunk), strict=True):
                logprob_CV = (x_CD.to(ctx.dtype) @ w_VD.T).log_softmax(-1, dtype=torch.float32)
                parts.append(logprob_CV.gather(1, label_C[:, None])[:, 0])
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad_M: Tensor) -> tuple[Tensor | None, ...]:
        x_MD, weight_VD, labels_M = ctx.saved_tensors
        with torch.autocast(x_MD.device.type, enabled=False):
            w_VD = weight_VD.to(ctx.dtype)
            dx_MD = torch.empty_like(x_MD)
            dw_VD = torch.zeros_like(weight_VD, dtype=torch.float32)
            for start in range(0, len(x_MD), ctx.chunk):
                end = start + ctx.chunk
                x_CD = x_MD[start:end].to(ctx.dtype)
                label_C1 = labels_M[start:end, None]
                grad_C1 = grad_M[start:end, None].float()
                d_CV = (x_CD @ w_VD.T).softmax(-1, dtype=torch.float32).mul_(-grad_C1)
                d_CV = d_CV.scatter_add_(1, label_C1, grad_C1).to(ctx.dtype)
                dx_MD[start:end] = d_CV @ w_VD
                dw_VD += d_CV.T @ x_CD
        return dx_MD, dw_VD.to(weight_VD.dtype), None, None
