"""Settings of sft."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from stages.config import StageConfig, execution
from stages.lm.training.config import Compute, LearningRateSchedule, Training


class SftSchedule(LearningRateSchedule):
    """The schedule of pretraining, with a longer decay."""

    decay_share: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Share of the steps in which the learning rate falls to zero (wsd)",
    )


class SftTraining(Training):
    """The settings of pretraining, with lower learning rates and a duration in epochs."""

    learning_rate: float = Field(5e-3, gt=0, le=1, description="Peak learning rate of AdamW")
    muon_learning_rate: float = Field(
        1e-2, gt=0, le=1, description="Peak learning rate of Muon (unused with adamw)"
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="Decoupled weight decay on matrices")
    lr_schedule: SftSchedule = Field(SftSchedule(), description="How the learning rate changes")
    batch_size: int = Field(
        8,
        ge=1,
        le=1 << 20,
        description="Rows of packed conversations per optimizer step, over all devices",
    )
    duration: float = Field(
        2, gt=0, le=1e15, description="How long to train, in the unit of duration_in"
    )
    duration_in: Literal["steps", "tokens", "epochs"] = Field(
        "epochs", description="Unit of duration"
    )
    evaluate_every: int = Field(
        100,
        ge=1,
        le=1 << 30,
        description="Steps between held-out evaluations; the last step always has one",
    )


class SftConfig(StageConfig):
    """Settings of sft."""

    training: SftTraining = Field(SftTraining(), description="How the model is optimized")
    repeat: dict[str, NonNegativeInt] = Field(
        {"identity": 20},
        description="How often the conversations of a kind occur in an epoch, by kind "
        "(others once; 0 leaves a kind out)",
    )
    replay: float = Field(
        0,
        ge=0,
        le=0.9,
        description="Share of the rows of a batch that are pretraining text, against forgetting",
    )
    heldout_conversations: int = Field(
        400, ge=0, le=1 << 30, description="Most held-out conversations that an evaluation reads"
    )
    answers: int = Field(
        64,
        ge=0,
        le=100_000,
        description="Held-out prompts to answer at the end, to see whether answers stop",
    )
    max_new_tokens: int = Field(
        96, ge=1, le=1 << 20, description="Tokens after which to cut an answer that does not stop"
    )
    seed: int = Field(0, ge=0, le=1 << 62, description="Seed of the order of the conversations")
    compute: Compute = execution(Compute(), "Where and how the training runs")

    @model_validator(mode="after")
    def _conversations_have_rows(self) -> Self:
        if self.replay and self.training.batch_size < 2:
            raise ValueError("replay needs training.batch_size of 2 or more")
        return self
