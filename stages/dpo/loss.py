"""The loss of direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290, equation 7).

Shapes: B pairs, 2 answers (chosen, rejected), T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from stages.lm.loss import IGNORED, balance_loss, row_logprobs
from stages.lm.model import LanguageModel
from stages.lm.training.batches import Batch
from stages.lm.training.step import Loss, LossFunction


@dataclass(frozen=True)
class Compared:
    """All [B]. loss: of DPO. margin: reward of chosen less that of rejected. chosen: log-probability of the chosen answer per token."""

    loss: Tensor
    margin: Tensor
    chosen: Tensor


def answer_logprobs(model: LanguageModel, batch: Batch) -> Tensor:
    """[B, 2] log-probability of each answer, its end token included."""
    ids, labels, lengths = (batch[name].flatten(0, 1) for name in ("ids", "labels", "lengths"))
    real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    return model(ids, lambda hidden, table: row_logprobs(hidden, table, labels), real_BT=real).view(
        -1, 2
    )


def compare(
    policy_B2: Tensor, reference_B2: Tensor, tokens_B2: Tensor, beta: float, length_normalised: bool
) -> Compared:
    """-log sigmoid(beta * ((chosen - its reference) - (rejected - its reference))), and the rewards beta * (policy - reference).

    length_normalised: each log-probability is divided by the number of the answer's tokens first.
    """
    change_B2 = policy_B2 - reference_B2
    if length_normalised:
        change_B2 = change_B2 / tokens_B2
    margin_B = beta * (change_B2[:, 0] - change_B2[:, 1])
    return Compared(-logsigmoid(margin_B), margin_B, policy_B2[:, 0] / tokens_B2[:, 0])


def preference_loss(beta: float, sft_weight: float, length_normalised: bool) -> LossFunction:
    """For `fit`: the DPO loss, plus sft_weight times the chosen answer's negative log-likelihood per token (Pang et al. 2024)."""

    def loss(model: LanguageModel, batch: Batch) -> Loss:
        policy_B2 = answer_logprobs(model, batch)
        found = compare(
            policy_B2, batch["reference"], counted(batch["labels"]), beta, length_normalised
        )
        pairs = len(policy_B2)
        total = (
            found.loss.sum()
            - sft_weight * found.chosen.sum()
            + balance_loss(model.balance_B.view(-1, 2).mean(1), 1)
        )
        figures = {
            "loss": found.loss.sum(),
            "reward_margin": found.margin.sum(),
            "reward_accuracy": (found.margin > 0).sum(),
        }
        return Loss(
            total,
            pairs,
            batch["lengths"].sum(),
            {name: value.detach().float() for name, value in figures.items()},
        )

    return loss


def counted(labels_B2T: Tensor) -> Tensor:
    """[B, 2] tokens of each answer."""
    return (labels_B2T != IGNORED).sum(-1).to(torch.float32)
