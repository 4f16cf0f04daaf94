"""Settings of pretrain. Two laptop cores train the default model in under three minutes."""

from __future__ import annotations

from pydantic import Field

from stages.config import StageConfig, execution
from stages.lm.config import ModelShape
from stages.lm.training.config import Compute, Training


class PretrainConfig(StageConfig):
    """Settings of pretrain."""

    model: ModelShape = Field(
        ModelShape(), description="Sizes of the model; the vocabulary comes from the tokenizer"
    )
    training: Training = Field(Training(), description="How the model is optimized")
    attend_across_documents: bool = Field(
        True, description="Let tokens see earlier documents in the same window"
    )
    heldout_tokens: int = Field(
        200_000, ge=1, le=1 << 40, description="Most held-out tokens that an evaluation reads"
    )
    seed: int = Field(
        0, ge=0, le=1 << 62, description="Seed of the initial weights and of the order of the data"
    )
    compute: Compute = execution(Compute(), "Where and how the training runs")
