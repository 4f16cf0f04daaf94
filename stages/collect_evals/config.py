"""Settings of collect_evals."""

from __future__ import annotations

from os.path import expanduser
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from stages.config import StageConfig, execution
from stages.file_digests import file_digests


class CollectEvalsConfig(StageConfig):
    """What to make of the held-out pages, and which benchmark files to add."""

    max_items: int = Field(
        400,
        ge=0,
        le=100_000,
        description="Items of each task made from held-out pages; 0: none",
    )
    choices: int = Field(4, ge=2, le=10, description="Choices of an item, including the right one")
    min_characters: int = Field(30, ge=10, le=1000, description="Shortest choice")
    max_characters: int = Field(
        200, ge=20, le=4000, description="Longest choice; longer sentences are not used"
    )
    context_characters: int = Field(
        400, ge=50, le=20_000, description="Most characters of text before a continuation"
    )
    max_pages: int = Field(
        200, ge=1, le=100_000, description="Held-out pages for bits per byte, drawn by hash"
    )
    max_page_characters: int = Field(
        20_000, ge=100, le=10_000_000, description="Longer pages are cut at the end of a line"
    )
    benchmarks: tuple[str, ...] = Field(
        (),
        description='JSONL or Parquet files with rows {"question", "choices", "answer"};'
        " the name of a file names its task",
    )
    seed: int = Field(
        0,
        ge=0,
        description="Seed of the choice of pages and sentences, and of the order of choices",
    )
    workers: int = execution(
        0,
        "Processes that search the training split for the sentences; 0: one per core",
        ge=0,
        le=4096,
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_characters >= self.max_characters:
            raise ValueError(
                f"min_characters = {self.min_characters} must be below"
                f" max_characters = {self.max_characters}"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """Identify a benchmark by its name and content, whatever its folder.

        Raises:
            InputError: A file does not exist.
        """
        contents = file_digests(self.benchmark_files, "collect_evals.benchmarks")
        benchmarks = [[path.name, contents[path]] for path in self.benchmark_files]
        return super().identity() | {"benchmarks": benchmarks}

    @property
    def benchmark_files(self) -> tuple[Path, ...]:
        """The paths of the benchmarks; ~ is the user's home folder."""
        # Path.expanduser would raise an error for an unknown ~name. This one leaves it as it is,
        # so that the file is reported as missing.
        return tuple(Path(expanduser(path)) for path in self.benchmarks)
