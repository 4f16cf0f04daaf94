"""Settings of train_tokenizer."""

from __future__ import annotations

from pydantic import Field

from stages.config import StageConfig


class TrainTokenizerConfig(StageConfig):
    """What the vocabulary is learned from, and how large it is."""

    vocabulary_size: int = Field(
        4096,
        ge=320,
        le=1 << 20,
        description="Tokens in all: 256 bytes, the special ones, and what is learned. Fewer if the text is small.",
    )
    sample_bytes: int = Field(
        100_000_000,
        ge=1000,
        le=4_000_000_000,
        description="Text to learn from, in UTF-8 bytes; of more, whole documents are drawn by hash.",
    )
    min_frequency: int = Field(
        2, ge=1, le=1_000_000, description="How often a pair must occur to become a token."
    )
    max_token_bytes: int = Field(
        32,
        ge=2,
        le=1024,
        description="Longest token, in bytes; keeps lines of dashes and the like out of the vocabulary.",
    )
    reserved_tokens: int = Field(
        12,
        ge=0,
        le=1024,
        description="Unused special tokens kept for later, so that a fine-tune needs no larger embedding.",
    )
    model_max_length: int = Field(
        1_048_576,
        ge=1,
        le=1 << 40,
        description="Tokens beyond which transformers warns. The model's own context length is in its config.",
    )
    seed: int = Field(
        0,
        ge=0,
        description="Decides which documents are drawn when there are more than sample_bytes.",
    )
