"""Settings of pack."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stages.config import StageConfig, execution

Epochs = Annotated[float, Field(ge=0, le=16)]


class PackConfig(StageConfig):
    """How documents become rows of token ids."""

    epochs: dict[str, Epochs] = Field(
        default_factory=dict,
        description="How often the documents of a source occur, by source (others once): 2 is "
        "twice, 0.5 is every other one, 0 is none; beyond about 4, repeated text teaches little "
        "(Muennighoff et al. 2023)",
    )
    max_row_tokens: int = Field(
        32_768,
        ge=16,
        le=1 << 24,
        description="Maximum number of tokens in a row; longer documents are cut into parts",
    )
    shard_bytes: int = Field(
        64_000_000,
        ge=1000,
        le=1 << 34,
        description="Approximate bytes of text per shard; each worker keeps one shard in memory",
    )
    min_train_tokens: int = Field(
        1024,
        ge=1,
        description="Minimum number of training tokens; fewer are an error",
    )
    seed: int = Field(0, ge=0, description="Seed of the order of documents")
    workers: int = execution(0, "Processes that encode text; 0: one per core", ge=0, le=4096)
