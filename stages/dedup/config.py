"""Settings of dedup."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from stages.config import RegularExpression, StageConfig, execution

MAX_MISSED_SHARE = 0.001  # of pairs at the threshold, with derived bands


class DedupConfig(StageConfig):
    """What counts as a duplicate, and which documents are held out."""

    threshold: float = Field(
        0.8,
        ge=0.3,
        le=1,
        description="Minimum Jaccard similarity of word n-grams for near-duplicates",
    )
    ngram: int = Field(5, ge=1, le=50, description="Number of words in a shingle")
    permutations: int = Field(
        128,
        ge=16,
        le=1024,
        description="Number of MinHash values per document; each takes 4 bytes of memory",
    )
    bands: int = Field(
        0,
        ge=0,
        le=512,
        description="Number of LSH bands; 0: as few as find 99.9 % of pairs at the threshold",
    )
    verify: bool = Field(
        True,
        description="Link two documents that share a band only if their signatures reach the "
        "threshold",
    )
    paragraph_chars: int = Field(
        0,
        ge=0,
        le=10**6,
        description="Keep a paragraph of at least this many characters only in the first document "
        "that has it; 0: keep all paragraphs",
    )
    heldout_share: float = Field(
        0.02,
        ge=0,
        le=0.5,
        description="Share of document families to hold out, by hash; above 0, at least one",
    )
    heldout_max_documents: int = Field(
        2000, ge=0, le=10**7, description="Maximum number of documents to hold out"
    )
    always_train: tuple[RegularExpression, ...] = Field(
        (),
        description="Regular expressions; a page whose URL matches one of them is never held out, "
        "nor are pages similar to it",
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
        """Return the number of bands and the rows per band.

        If `bands` is 0, they are derived: as many rows as possible, for the fewest false
        candidates, with a recall of 0.999 at the threshold. A pair of similarity s shares a band
        with probability 1 - (1 - s^rows)^bands (Leskovec et al., Mining of Massive Datasets,
        section 3.4).
        """
        if self.bands:
            return self.bands, self.permutations // self.bands
        for rows in range(self.permutations, 1, -1):
            bands = self.permutations // rows
            missed = (1 - self.threshold**rows) ** bands
            if missed <= MAX_MISSED_SHARE:
                return bands, rows
        return self.permutations, 1
