"""Settings of collect_preferences."""

from __future__ import annotations

from os.path import expanduser
from pathlib import Path
from typing import Any

from pydantic import Field

from stages.config import StageConfig, execution
from stages.file_digests import file_digests
from stages.lm.training.config import Compute


class CollectPreferencesConfig(StageConfig):
    """How the model answers, which pairs are kept, and which files of your own are added."""

    prompts: int = Field(
        256,
        ge=0,
        le=10_000_000,
        description="Conversations whose prompt the model answers; 0: use only your own files",
    )
    kinds: tuple[str, ...] = Field((), description="Only conversations of these kinds; empty: all")
    files: tuple[str, ...] = Field(
        (), description="Your own pairs: .jsonl or .parquet with `prompt`, `chosen` and `rejected`"
    )
    temperature: float = Field(
        0.8,
        gt=0,
        le=10,
        description="Sampling temperature; low values give the model's usual mistakes",
    )
    top_p: float = Field(
        0.95, gt=0, le=1, description="Sample from the smallest set of tokens with this probability"
    )
    max_new_tokens: int = Field(
        96,
        ge=1,
        le=1 << 20,
        description="Most tokens of an answer; one that is longer is rejected as unfinished",
    )
    keep_unfinished: bool = Field(
        False, description="Also take answers cut at max_new_tokens; for models that seldom stop"
    )
    similarity: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Drop pairs whose answers have at least this share of characters in common,"
        " in order (1 = equal)",
    )
    heldout_share: float = Field(
        0.25,
        ge=0,
        le=0.9,
        description="Share of held-out conversations (and file rows) whose pairs measure dpo",
    )
    seed: int = Field(
        0,
        ge=0,
        le=1 << 62,
        description="Seed of the choice of prompts, of sampling and of the split",
    )
    batch_size: int = execution(64, "Prompts answered at once", ge=1, le=65536)
    compute: Compute = execution(Compute(), "Device and threads; one device is used")

    def identity(self) -> dict[str, Any]:
        """Add the contents of the files, so that not only their names count."""
        paths = {path: Path(expanduser(path)) for path in self.files}
        contents = file_digests(paths.values(), "collect_preferences.files")
        files = {name: contents[path] for name, path in paths.items()}
        return super().identity() | {"files": files}
