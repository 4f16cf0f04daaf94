"""The quality rules.

Each rule bounds one signal, so other thresholds can be replayed from the stored columns alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stages.clean.config import CleanConfig, LanguageSettings


@dataclass(frozen=True)
class QualityRule:
    """A bound on one signal. A document without the signal passes.

    Attributes:
        name: The reason that a rejected document gets.
        signal: Column of the signal.
        bound: Whether the signal must be at least or at most the threshold.
        setting: Name of the threshold in the settings of the rule set.
    """

    name: str
    signal: str
    bound: Literal["least", "most"]
    setting: str

    def passes(self, value: float | None, threshold: float) -> bool:
        """Return whether a document with this value of the signal passes."""
        if value is None:
            return True
        if self.bound == "least":
            return value >= threshold
        return value <= threshold


RULES: dict[str, tuple[QualityRule, ...]] = {
    "gopher_quality": (
        QualityRule("gopher_too_few_words", "words", "least", "min_words"),
        QualityRule("gopher_too_many_words", "words", "most", "max_words"),
        QualityRule("gopher_words_too_short", "mean_word_length", "least", "min_mean_word_length"),
        QualityRule("gopher_words_too_long", "mean_word_length", "most", "max_mean_word_length"),
        QualityRule("gopher_symbols", "symbol_word_ratio", "most", "max_symbol_word_ratio"),
        QualityRule("gopher_bullet_lines", "bullet_lines_ratio", "most", "max_bullet_lines_ratio"),
        QualityRule(
            "gopher_ellipsis_lines", "ellipsis_lines_ratio", "most", "max_ellipsis_lines_ratio"
        ),
        QualityRule(
            "gopher_words_without_letters", "alpha_words_ratio", "least", "min_alpha_words_ratio"
        ),
        QualityRule("gopher_stop_words", "stop_words", "least", "min_stop_words"),
    ),
    "gopher_repetition": (
        QualityRule(
            "gopher_duplicate_lines", "duplicate_lines_ratio", "most", "max_duplicate_lines"
        ),
        QualityRule(
            "gopher_duplicate_paragraphs",
            "duplicate_paragraphs_ratio",
            "most",
            "max_duplicate_paragraphs",
        ),
        QualityRule(
            "gopher_duplicate_lines_chars",
            "duplicate_lines_chars_ratio",
            "most",
            "max_duplicate_lines_chars",
        ),
        QualityRule("gopher_top_2gram", "top_2gram_ratio", "most", "max_top_2gram"),
        QualityRule("gopher_top_3gram", "top_3gram_ratio", "most", "max_top_3gram"),
        QualityRule("gopher_top_4gram", "top_4gram_ratio", "most", "max_top_4gram"),
        QualityRule(
            "gopher_duplicate_5gram", "duplicate_5gram_ratio", "most", "max_duplicate_5gram"
        ),
        QualityRule(
            "gopher_duplicate_10gram", "duplicate_10gram_ratio", "most", "max_duplicate_10gram"
        ),
    ),
    "c4": (QualityRule("c4_too_few_sentences", "sentences", "least", "min_sentences"),),
    "fineweb": (
        QualityRule(
            "fineweb_line_punctuation", "line_punctuation_ratio", "least", "min_line_punctuation"
        ),
        QualityRule("fineweb_short_lines", "short_lines_ratio", "most", "max_short_lines"),
        QualityRule(
            "fineweb_duplicate_lines_chars",
            "duplicate_lines_chars_ratio",
            "most",
            "max_duplicate_lines_chars",
        ),
        QualityRule("fineweb_newlines", "newline_word_ratio", "most", "max_newline_word_ratio"),
    ),
}


def first_failing(signals: Mapping[str, Any], config: CleanConfig) -> tuple[str, str] | None:
    """Find the first rule that rejects a document, languages first, then in the order of RULES.

    Args:
        signals: The columns of a document.
        config: The settings of the stage.

    Returns:
        The reason and its detail, or None if the document is kept.
    """
    language, confidence = signals["language"], signals["language_confidence"]
    failure = failing_language(language, confidence, config.language)
    if failure:
        return failure
    for name, rules in RULES.items():
        if name not in config.rules:
            continue
        thresholds = getattr(config, name)
        for rule in rules:
            value = signals[rule.signal]
            threshold = getattr(thresholds, rule.setting)
            if not rule.passes(value, threshold):
                comparison = "<" if rule.bound == "least" else ">"
                detail = f"{rule.signal} {_formatted(value)} {comparison} {threshold}"
                return rule.name, detail
    return None


def failing_language(
    language: str, confidence: float | None, settings: LanguageSettings
) -> tuple[str, str] | None:
    """Like `first_failing`, for the language alone, which is known before the other signals."""
    if settings.keep and language not in settings.keep:
        probability = f"probability {_formatted(confidence)}"
        detail = f"language {language} ({probability}), kept: {', '.join(settings.keep)}"
        return "language", detail
    if confidence is not None and confidence < settings.min_confidence:
        detail = f"language_confidence {_formatted(confidence)} < {settings.min_confidence}"
        return "language_unsure", detail
    return None


def _formatted(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
