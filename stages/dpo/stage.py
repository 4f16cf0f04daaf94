"""dpo: a checkpoint after sft and preference pairs → a checkpoint that prefers the chosen answers."""

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
from stages.lm.checkpoint import load_model, special_ids, write_checkpoint
from stages.lm.model import LanguageModel
from stages.lm.parallel import fsdp
from stages.lm.parallel.launch import distributed
from stages.lm.training.loop import fit
from stages.report import Facts, Report

ROWS_AT_ONCE = 16  # pairs of a reference or held-out pass
ROUNDING = 0.02  # nats that 16-bit matrix products may put the first loss off ln 2


@distributed("dpo")
def run(
    config: DpoConfig, *, checkpoint: Artifact, preferences: Artifact, out: Draft, report: Report
) -> Facts:
    """Policy and reference are the same model at first, so the first loss is ln 2; the reference's log-probabilities are made once.

    Raises InputError if no pair is left to train on.
    """
    chat, model = ChatFormat(checkpoint), load_model(checkpoint)
    rejected: Counter[str] = Counter()
    found = pairs_of.read(preferences, chat, model.config.context, rejected)
    if not found["train"]:
        raise _nothing_left(preferences, rejected, len(found["heldout"]), model.config.context)
    pad = special_ids(checkpoint)["pad_token_id"] or 0
    train = PairBatches(found["train"], config.training.batch_rows, config.seed, pad)
    heldout = PairBatches(
        sorted(found["heldout"], key=lambda pair: pair.name)[: config.heldout_pairs],
        1,
        config.seed,
        pad,
    )
    steps = config.training.steps(train.tokens_per_row, train.rows_per_epoch)

    model = fsdp.shard_model(model, config.compute)
    precision.set_threads(config.compute)
    device = model.head_weight.device
    with precision.autocast(precision.matmul_dtype(config.compute, device), device):
        train.remember_reference(model, ROWS_AT_ONCE, report)
        heldout.remember_reference(model, ROWS_AT_ONCE, report)
    fsdp.reshard(model)
    measured: dict[str, float] = {}

    def evaluate(model: LanguageModel) -> dict[str, float]:
        measured.update(score(model, heldout, config))
        return {"heldout_loss": measured["heldout_loss"]}

    result = fit(
        model, train, preference_loss(config.beta, config.sft_weight, config.length_normalised), training=config.training,
        compute=config.compute, steps=steps, scratch=out.scratch, report=report, evaluate=evaluate if heldout.rows_per_epoch else None,
        guard={"seed": config.seed, "checkpoint": checkpoint.id, "preferences": preferences.id}, sequences_per_row=2,
    )  # fmt: skip
    write_checkpoint(out, model, checkpoint, result.metrics, chat.stop_ids)

    first, last = result.metrics[0].get("loss"), result.metrics[-1]  # no loss: step 0 was skipped
    notes = list(result.notes)
    if first is not None and abs(first - math.log(2)) > ROUNDING:
        notes.append(
            f"The first loss was {first:.4f}, not ln 2 = {math.log(2):.4f}: reference and policy did not compute the same."
        )
    figures = {
        "loss_at_step_0": first, "reward_accuracy": last.get("reward_accuracy"), "reward_margin": last.get("reward_margin"),
        "heldout_accuracy": measured.get("accuracy"), "heldout_margin": measured.get("margin"),
        "heldout_loss": measured.get("heldout_loss"),
        "pairs": train.rows_per_epoch, "heldout_pairs": heldout.rows_per_epoch, "dropped": rejected.total(), **result.figures,
    }  # fmt: skip
    return Facts(figures=figures, rejected=dict(sorted(rejected.items())), notes=notes)


@torch.no_grad()
def score(model: LanguageModel, heldout: PairBatches, config: DpoConfig) -> dict[str, float]:
    """Means over the held-out pairs: DPO loss, margin, and accuracy (the share whose chosen answer gained on the rejected one)."""
    device, sums = model.head_weight.device, torch.zeros(3)
    for start in range(0, heldout.rows_per_epoch, ROWS_AT_ONCE):
        batch = heldout.at(range(start, min(start + ROWS_AT_ONCE, heldout.rows_per_epoch)))
        policy_B2, tokens_B2 = (
            heldout.logprobs(model, batch, device).cpu(),
            counted(batch["labels"]),
        )
        found = compare(
            policy_B2, batch["reference"], tokens_B2, config.beta, config.length_normalised
        )
        sums += torch.stack((found.loss.sum(), found.margin.sum(), (found.margin > 0).sum()))
    return dict(
        zip(
            ("heldout_loss", "margin", "accuracy"),
            (sums / heldout.rows_per_epoch).tolist(),
            strict=True,
        )
    )


def _nothing_left(
    preferences: Artifact, rejected: Counter[str], heldout: int, context: int
) -> InputError:
    told = (
        ", ".join(f"{count} {reason}" for reason, count in rejected.most_common())
        or "none was refused"
    )
    return InputError(
        f"{preferences}",
        f"0 of {preferences.rows('pairs')} pairs can be trained on: {told}, {heldout} held out; the model's context is {context} tokens",
        "give collect_preferences more prompts or files, or a smaller heldout_share",
    )
