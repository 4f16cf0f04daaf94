"""Settings of dpo."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stages.config import StageConfig, execution
from stages.lm.training.config import Compute, LearningRateSchedule, Training


class DpoSchedule(LearningRateSchedule):
    """The schedule of pretraining, with a longer warm-up and decay."""

    warmup_share: float = Field(
        0.1, ge=0, le=0.5, description="Share of the steps in which the learning rate rises"
    )
    decay_share: float = Field(
        0.9, ge=0, le=1, description="Share of the steps in which it falls to zero (wsd)"
    )


class DpoTraining(Training):
    """The settings of pretraining, with much lower learning rates. A row is a pair."""

    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: Muon for the matrices of the blocks, AdamW for all others"
    )
    learning_rate: float = Field(5e-5, gt=0, le=1, description="Peak learning rate of AdamW")
    muon_learning_rate: float = Field(
        5e-4, gt=0, le=1, description="Peak learning rate of Muon (unused with adamw)"
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="Decoupled weight decay on matrices")
    lr_schedule: DpoSchedule = Field(DpoSchedule(), description="How the learning rate changes")
    batch_size: int = Field(
        16, ge=1, le=1 << 20, description="Pairs per optimizer step, over all devices"
    )
    duration: float = Field(
        2, gt=0, le=1e15, description="How long to train, in the unit of duration_in"
    )
    duration_in: Literal["steps", "tokens", "epochs"] = Field(
        "epochs", description="Unit of duration"
    )
    evaluate_every: int = Field(
        50,
        ge=1,
        le=1 << 30,
        description="Steps between held-out evaluations; the last step always has one",
    )


class DpoConfig(StageConfig):
    """Settings of dpo."""

    training: DpoTraining = Field(DpoTraining(), description="How the model is optimized")
    beta: float = Field(
        0.1,
        gt=0,
        le=100,
        description="Weight of a preference against staying near the reference",
    )
    sft_weight: float = Field(
        0.2,
        ge=0,
        le=100,
        description="Weight of the chosen answers' loss per token; keeps a small model fluent",
    )
    length_normalised: bool = Field(
        False,
        description="Compare log-probabilities per token, so that long answers have no more weight",
    )
    heldout_pairs: int = Field(
        256, ge=0, le=1 << 30, description="Most held-out pairs that an evaluation reads"
    )
    seed: int = Field(0, ge=0, le=1 << 62, description="Seed of the order of the pairs")
    compute: Compute = execution(Compute(), "Where and how the training runs")
