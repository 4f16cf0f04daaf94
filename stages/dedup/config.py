"""Settings of dedup."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from stages.config import RegularExpression, StageConfig, execution


class DedupConfig(StageConfig):
    threshold: float = Field(
        0.8,
        ge=0.3,
        le=1,
        description="Jaccard similarity of word n-grams from which documents are near-duplicates",
    )
    ngram: int = Field(5, ge=1, le=50, description="Words in a shingle")
    permutations: int = Field(
        128, ge=16, le=1024, description="MinHash values per document; memory is 4 bytes each"
    )
    bands: int = Field(
        0,
        ge=0,
        le=512,
        description="LSH bands; 0: as few as still find 99.9 % of the pairs at the threshold",
    )
    verify: bool = Field(
        True,
        description="Link two documents of a band only if their signatures say that they reach the threshold",
    )
    paragraph_chars: int = Field(
        0,
        ge=0,
        le=10**6,
        description="Keep a paragraph of at least so many characters only where it comes first, over all documents; 0: all",
    )
    heldout_share: float = Field(
        0.02,
        ge=0,
        le=0.5,
        description="Share of the document families held out, by hash; at least one if above 0",
    )
    heldout_max_documents: int = Field(2000, ge=0, le=10**7, description="Most documents held out")
    always_train: tuple[RegularExpression, ...] = Field(
        (),
        description="A page in whose address one of these is found is never held out, nor a page like it",
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="Seed of the permutations and of the held-out split"
    )
    workers: int = execution(0, "Worker processes; 0: one per core", ge=0, le=4096)

    @model_validator(mode="after")
    def _bands_fit(self) -> Self:
        if self.bands > self.permutations:
            raise ValueError(f"bands {self.bands} > permutations {self.permutations}")
        return self

    def bands_and_rows(self) -> tuple[int, int]:
        """Bands and rows per band. Derived: the most rows (fewest false candidates) with recall 0.999 at the threshold.

        A pair of similarity s shares a band with probability 1 - (1 - s^rows)^bands (Leskovec et al., Mining of Massive
        Datasets, section 3.4).
        """
        if self.bands:
            return self.bands, self.permutations // self.bands
        for rows in range(self.permutations, 1, -1):
            bands = self.permutations // rows
            if (1 - self.threshold**rows) ** bands <= 0.001:
                return bands, rows
        return self.permutations, 1
