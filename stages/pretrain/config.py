"""Settings of pretrain. The defaults are a model that two laptop cores train in under three minutes."""

from __future__ import annotations

from pydantic import Field

from stages.config import StageConfig, execution
from stages.lm.config import Compute, ModelShape, Training


class PretrainConfig(StageConfig):
    model: ModelShape = Field(
        ModelShape(), description="Sizes of the model; the vocabulary comes from the tokenizer"
    )
    training: Training = Field(Training(), description="How it is optimized")
    attend_across_documents: bool = Field(
        True, description="Let tokens see the document before theirs in the same window"
    )
    heldout_tokens: int = Field(
        200_000, ge=1, le=1 << 40, description="Held-out tokens that an evaluation reads at most"
    )
    seed: int = Field(
        0, ge=0, le=1 << 62, description="Seed of the first weights and of the order of the data"
    )
    compute: Compute = execution(Compute(), "Where and how the training runs")
