"""Settings of decontaminate."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from stages.config import StageConfig, execution


class DecontaminateConfig(StageConfig):
    """What counts as a shared passage."""

    ngram: int = Field(
        13,
        ge=3,
        le=100,
        description="Words in a row that a document may not share with an item (Brown et al. 2020: 13).",
    )
    shortest: int = Field(
        8,
        ge=3,
        le=100,
        description="Items with fewer words than `ngram` count whole, if they have so many words.",
    )
    max_document_frequency: int = Field(
        20,
        ge=1,
        description="A passage in more training documents than this is boilerplate and not counted, unless an item of a benchmark has it.",
    )
    workers: int = execution(0, "Processes that scan; 0 is one per core.", ge=0, le=4096)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.shortest > self.ngram:
            raise ValueError(f"shortest = {self.shortest} must not exceed ngram = {self.ngram}")
        return self
