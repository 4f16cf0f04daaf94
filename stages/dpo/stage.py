"""dpo: a checkpoint and preference pairs → a checkpoint that prefers the chosen answers."""

from __future__ import annotations

import math
from collections import Counter

import torch

from data_contracts import Artifact, Draft, InputError
from stages.dpo import pairs as pairs_of
from stages.dpo.config import DpoConfig
from stages.dpo.loss import compare, counted, preference_loss
from stages.dpo.pairs import PairBatches
from stages.lm import precision
from stages.lm.chat import ChatFormat
from stages.lm.checkpoint import load_model, write_checkpoint
from stages.lm.model import LanguageModel
from stages.lm.parallel import fsdp
from stages.lm.parallel.launch import distributed
from stages.lm.tokenizer import ModelTokenizer
from stages.lm.training.loop import fit
from stages.report import Facts, Report
from stages.text.heldout import first_by_id

ROWS_AT_ONCE = 16  # pairs of one forward pass, for the reference and for held-out pairs
ROUNDING = 0.02  # nats by which 16-bit matrix products may move the first loss away from ln 2


@distributed("dpo")
def run(
    config: DpoConfig, *, checkpoint: Artifact, preferences: Artifact, out: Draft, report: Report
) -> Facts:
    """Train the checkpoint against itself as the frozen reference, so the first loss is ln 2.

    Args:
        config: The settings of the stage.
        checkpoint: The checkpoint to train, which is the reference, too.
        preferences: What to train and evaluate on.
        out: The draft of the checkpoint.
        report: Receives progress, metrics and notes.

    Raises:
        InputError: No pair is left to train on.
    """
    chat = ChatFormat(ModelTokenizer(checkpoint))
    model = load_model(checkpoint)
    rejected: Counter[str] = Counter()
    train, heldout = _batches(config, preferences, chat, model.config.context, rejected)

    model = fsdp.shard_model(model, config.compute)
    _remember_reference(model, [train, heldout], config, report)
    measured: dict[str, float] = {}

    def evaluate(model: LanguageModel) -> dict[str, float]:
        measured.update(score(model, heldout, config))
        return {"heldout_loss": measured["heldout_loss"]}

    result = fit(
        model,
        train,
        preference_loss(config.beta, config.sft_weight, config.length_normalised),
        training=config.training,
        compute=config.compute,
        steps=config.training.steps(train.tokens_per_row, train.rows_per_epoch),
        scratch=out.scratch,
        report=report,
        guard={"seed": config.seed, "checkpoint": checkpoint.id, "preferences": preferences.id},
        evaluate=evaluate if heldout.rows_per_epoch else None,
        sequences_per_row=2,
    )
    write_checkpoint(out, model, chat.tokenizer, result.metrics, chat.stop_ids)

    first_loss = result.metrics[0].get("loss")  # None: step 0 was skipped
    last = result.metrics[-1]
    figures = {
        "loss_at_step_0": first_loss,
        "reward_accuracy": last.get("reward_accuracy"),
        "reward_margin": last.get("reward_margin"),
        "heldout_accuracy": measured.get("accuracy"),
        "heldout_margin": measured.get("margin"),
        "heldout_loss": measured.get("heldout_loss"),
        "pairs": train.rows_per_epoch,
        "heldout_pairs": heldout.rows_per_epoch,
        "dropped": rejected.total(),
        **result.figures,
    }
    notes = [*result.notes, *_first_loss_notes(first_loss)]
    return Facts(figures=figures, rejected=dict(sorted(rejected.items())), notes=notes)


def _batches(
    config: DpoConfig,
    preferences: Artifact,
    chat: ChatFormat,
    context: int,
    rejected: Counter[str],
) -> tuple[PairBatches, PairBatches]:
    """Return the pairs to train on, and the held-out ones.

    Raises:
        InputError: No pair is left to train on.
    """
    found = pairs_of.read(preferences, chat, context, rejected)
    if not found["train"]:
        raise _nothing_left(preferences, rejected, len(found["heldout"]), context)
    pad = chat.tokenizer.pad_id
    train = PairBatches(found["train"], config.training.batch_size, config.seed, pad)
    chosen = first_by_id(found["heldout"], config.heldout_pairs, lambda pair: pair.name)
    heldout = PairBatches(chosen, 1, config.seed, pad)
    return train, heldout


def _remember_reference(
    model: LanguageModel, batches: list[PairBatches], config: DpoConfig, report: Report
) -> None:
    precision.set_threads(config.compute)
    device = model.head_weight.device
    with precision.autocast(precision.matmul_dtype(config.compute, device), device):
        for pairs in batches:
            pairs.remember_reference(model, ROWS_AT_ONCE, report)
    fsdp.reshard(model)


@torch.no_grad()
def score(model: LanguageModel, heldout: PairBatches, config: DpoConfig) -> dict[str, float]:
    """Return the means over the held-out pairs.

    Args:
        model: The model in training.
        heldout: The pairs, with the log-probabilities of the reference.
        config: The settings of the loss.

    Returns:
        `heldout_loss`: the DPO loss. `margin`: reward of the chosen answer less that of the
        rejected one. `accuracy`: the fraction of pairs whose margin is positive.
    """
    device = model.head_weight.device
    count = heldout.rows_per_epoch
    sums = torch.zeros(3)
    for start in range(0, count, ROWS_AT_ONCE):
        end = min(start + ROWS_AT_ONCE, count)
        batch = heldout.at(range(start, end))
        found = compare(
            heldout.logprobs(model, batch, device).cpu(),
            batch["reference"],
            counted(batch["labels"]),
            config.beta,
            config.length_normalised,
        )
        is_right_B = found.margin > 0
        sums += torch.stack((found.loss.sum(), found.margin.sum(), is_right_B.sum()))
    loss, margin, accuracy = (sums / count).tolist()
    return {"heldout_loss": loss, "margin": margin, "accuracy": accuracy}


def _first_loss_notes(first_loss: float | None) -> list[str]:
    """Return a note if reference and policy did not compute the same at the start."""
    ln2 = math.log(2)
    if first_loss is None or abs(first_loss - ln2) <= ROUNDING:
        return []
    return [
        f"The first loss was {first_loss:.4f}, not ln 2 = {ln2:.4f}: "
        "reference and policy did not compute the same."
    ]


def _nothing_left(
    preferences: Artifact, rejected: Counter[str], heldout: int, context: int
) -> InputError:
    counts = [f"{count} {reason}" for reason, count in rejected.most_common()]
    reasons = ", ".join(counts) or "none was rejected"
    return InputError(
        f"{preferences}",
        f"0 of {preferences.rows('pairs')} pairs can be trained on: {reasons}, {heldout} held out; "
        f"the model's context is {context} tokens",
        "give collect_preferences more prompts or files, or a smaller heldout_share",
    )
