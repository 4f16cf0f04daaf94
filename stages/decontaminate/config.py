"""Settings of decontaminate."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from stages.config import StageConfig, execution


class DecontaminateConfig(StageConfig):
    """What counts as a passage that a document shares with an evaluation item."""

    ngram: int = Field(
        13,
        ge=3,
        le=100,
        description="Number of consecutive words that a document must not share with an item "
        "(Brown et al. 2020: 13)",
    )
    shortest: int = Field(
        8,
        ge=3,
        le=100,
        description="Minimum number of words of an item; one with fewer words than `ngram` "
        "counts as a whole",
    )
    max_document_frequency: int = Field(
        20,
        ge=1,
        description="A passage in more training documents than this is boilerplate and does not "
        "count, unless a benchmark item contains it",
    )
    workers: int = execution(0, "Processes that scan documents; 0: one per core", ge=0, le=4096)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.shortest > self.ngram:
            raise ValueError(f"shortest = {self.shortest} must not exceed ngram = {self.ngram}")
        return self
