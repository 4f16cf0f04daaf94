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
        description="How often the documents of a source occur, by source: 2 is twice, 0.5 every other one, 0 none. Default 1. "
        "Beyond about 4, repeated text teaches little (Muennighoff et al. 2023).",
    )
    max_row_tokens: int = Field(
        32_768,
        ge=16,
        le=1 << 24,
        description="Longer documents are cut into parts of at most so many tokens.",
    )
    shard_bytes: int = Field(
        64_000_000,
        ge=1000,
        le=1 << 34,
        description="About so much text goes into one shard; a worker holds one shard in memory.",
    )
    min_train_tokens: int = Field(
        1024,
        ge=1,
        description="Fewer tokens than this are refused: there would be nothing to train on.",
    )
    seed: int = Field(0, ge=0, description="Decides the order of documents.")
    workers: int = execution(0, "Processes that encode; 0 is one per core.", ge=0, le=4096)
