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
class PairComparison:
    """How the policy compares the answers of pairs.

    Attributes:
        loss: [B], DPO loss.
        margin: [B], reward of the chosen answer less that of the rejected one.
        chosen: [B], log-probability of the chosen answer, per token.
    """

    loss: Tensor
    margin: Tensor
    chosen: Tensor


def answer_logprobs(model: LanguageModel, batch: Batch) -> Tensor:
    """Return the log-probability of each answer, its end token included.

    Args:
        model: The model.
        batch: As `stages.dpo.pairs.PairBatches` gives it.

    Returns:
        [B, 2], in nats.
    """
    ids = batch["ids"].flatten(0, 1)
    labels = batch["labels"].flatten(0, 1)
    lengths = batch["lengths"].flatten(0, 1)
    real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]

    def head(hidden_BTD: Tensor, weight_VD: Tensor) -> Tensor:
        return row_logprobs(hidden_BTD, weight_VD, labels)

    return model(ids, head, real_BT=real).view(-1, 2)


def compare(
    policy_B2: Tensor, reference_B2: Tensor, tokens_B2: Tensor, beta: float, length_normalised: bool
) -> PairComparison:
    """Compute -log sigmoid(beta * ((chosen - its reference) - (rejected - its reference))).

    Args:
        policy_B2: Log-probability of each answer under the model in training.
        reference_B2: The same under the frozen reference.
        tokens_B2: Tokens of each answer.
        beta: Scale of the rewards, beta * (policy - reference).
        length_normalised: Divide each log-probability by the number of tokens first.
    """
    change_B2 = policy_B2 - reference_B2
    if length_normalised:
        change_B2 = change_B2 / tokens_B2
    margin_B = beta * (change_B2[:, 0] - change_B2[:, 1])
    return PairComparison(-logsigmoid(margin_B), margin_B, policy_B2[:, 0] / tokens_B2[:, 0])


def preference_loss(beta: float, sft_weight: float, length_normalised: bool) -> LossFunction:
    """Return the DPO loss, plus the chosen answers' negative log-likelihood (Pang et al. 2024).

    Args:
        beta: See `compare`.
        sft_weight: Weight of the negative log-likelihood per token.
        length_normalised: See `compare`.
    """

    def loss(model: LanguageModel, batch: Batch) -> Loss:
        policy_B2 = answer_logprobs(model, batch)
        tokens_B2 = counted(batch["labels"])
        found = compare(policy_B2, batch["reference"], tokens_B2, beta, length_normalised)
        balance = balance_loss(model.balance_B.view(-1, 2).mean(1), 1)
        total = found.loss.sum() - sft_weight * found.chosen.sum() + balance
        figures = {
            "loss": found.loss.sum(),
            "reward_margin": found.margin.sum(),
            "reward_accuracy": (found.margin > 0).sum(),
        }
        return Loss(
            total,
            weight=len(policy_B2),
            tokens=batch["lengths"].sum(),
            figures={name: value.detach().float() for name, value in figures.items()},
        )

    return loss


def counted(labels_B2T: Tensor) -> Tensor:
    """Count the tokens of each answer.

    Args:
        labels_B2T: Labels; IGNORED where no token of the answer is.

    Returns:
        [B, 2] in float32.
    """
    return (labels_B2T != IGNORED).sum(-1).to(torch.float32)
