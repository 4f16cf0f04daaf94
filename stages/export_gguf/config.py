"""Settings of the GGUF export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from stages.config import Settings, StageConfig, execution

Quantization = Literal["F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"]


class MaxDivergence(Settings):
    """The largest mean KL(torch || llama.cpp) in nats per position, by bits of a weight."""

    bits_16: float = Field(0.002, gt=0, le=100, description="Limit for F32 and F16")
    bits_8: float = Field(0.02, gt=0, le=100, description="Limit for BF16 and Q8_0")
    bits_5: float = Field(0.15, gt=0, le=100, description="Limit for Q5_0 and Q5_1")
    bits_4: float = Field(0.4, gt=0, le=100, description="Limit for Q4_0 and Q4_1")


class ExportGgufConfig(StageConfig):
    """What to write, and how far it may be from torch. The README says what is usual."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "max_kl_16bit": "max_kl.bits_16",
        "max_kl_8bit": "max_kl.bits_8",
        "max_kl_5bit": "max_kl.bits_5",
        "max_kl_4bit": "max_kl.bits_4",
    }

    quantizations: list[Quantization] = Field(
        ["F16", "Q8_0", "Q4_0"], min_length=1, description="One GGUF file for each"
    )
    name: str = Field(
        "groundup",
        min_length=1,
        max_length=64,
        pattern=r"^[\w.-]+( [\w.-]+)*$",
        description="Name in the metadata and file names",
    )
    author: str = Field("", max_length=200, description="Author in the metadata; empty: none")
    license: str = Field(
        "",
        max_length=100,
        description="Licence of the weights in the metadata, e.g. apache-2.0; empty: none",
    )
    prompts: list[str] = Field(
        [
            "Hello! Who are you?",
            "What does the function do?",
            "Give an example.",
            "  Why is that?\n\nExplain it  in one line. ",
        ],
        min_length=1,
        description="What a user says, for the comparison with torch through the chat template",
    )
    new_tokens: int = Field(
        32, ge=1, le=4096, description="Tokens of greedy text to compare after each prompt"
    )
    positions: int = Field(
        64,
        ge=1,
        le=65536,
        description="Positions at which to compare the distribution over the whole vocabulary",
    )
    max_kl: MaxDivergence = Field(
        MaxDivergence(), description="Largest mean KL(torch || llama.cpp), in nats per position"
    )
    seed: int = Field(
        0,
        ge=0,
        description="Seed of the text at which distributions are compared; "
        "the model itself samples it",
    )
    threads: int = execution(
        0, "CPU threads of llama.cpp; 0: as many as a file of this size can use", ge=0, le=4096
    )

    def limit(self, quantization: str) -> tuple[str, float]:
        """Return the name and the value of the limit that applies to a quantization."""
        names = {"BF": "bits_8", "Q8": "bits_8", "Q5": "bits_5", "Q4": "bits_4"}
        name = names.get(quantization[:2], "bits_16")
        return f"max_kl.{name}", getattr(self.max_kl, name)
