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
        description="Number of tokens: 256 bytes, the special tokens and the learned ones; a small "
        "text gives fewer",
    )
    sample_bytes: int = Field(
        100_000_000,
        ge=1000,
        le=4_000_000_000,
        description="UTF-8 bytes of text to learn from; if there are more, whole documents are "
        "drawn by hash",
    )
    min_frequency: int = Field(
        2,
        ge=1,
        le=1_000_000,
        description="How often a pair of tokens must occur to become a token",
    )
    max_token_bytes: int = Field(
        32,
        ge=2,
        le=1024,
        description="Maximum length of a token in bytes; it keeps long lines of dashes and the "
        "like out of the vocabulary",
    )
    reserved_tokens: int = Field(
        12,
        ge=0,
        le=1024,
        description="Number of unused special tokens; with them, a later fine-tune needs no larger "
        "embedding",
    )
    model_max_length: int = Field(
        1_048_576,
        ge=1,
        le=1 << 40,
        description="Number of tokens beyond which transformers warns; the context length of a "
        "model is part of its own configuration",
    )
    seed: int = Field(
        0,
        ge=0,
        description="Seed that draws documents if there is more text than sample_bytes",
    )
