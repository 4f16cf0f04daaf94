"""The quality rules: each is a bound on one signal, so that other thresholds can be replayed from the columns alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stages.clean.config import CleanConfig, LanguageSettings


@dataclass(frozen=True)
class Rule:
    """A document passes if `signal` is at least, or at most, the threshold called `setting`. A null signal passes."""

    name: str
    signal: str
    bound: Literal["least", "most"]
    setting: str

    def passes(self, value: float | None, threshold: float) -> bool:
        return value is None or (
            value >= threshold if self.bound == "least" else value <= threshold
        )


RULES: dict[str, tuple[Rule, ...]] = {
    "gopher_quality": (
        Rule("gopher_too_few_words", "words", "least", "min_words"),
        Rule("gopher_too_many_words", "words", "most", "max_words"),
        Rule("gopher_words_too_short", "mean_word_length", "least", "min_mean_word_length"),
        Rule("gopher_words_too_long", "mean_word_length", "most", "max_mean_word_length"),
        Rule("gopher_symbols", "symbol_word_ratio", "most", "max_symbol_word_ratio"),
        Rule("gopher_bullet_lines", "bullet_lines_ratio", "most", "max_bullet_lines_ratio"),
        Rule("gopher_ellipsis_lines", "ellipsis_lines_ratio", "most", "max_ellipsis_lines_ratio"),
        Rule("gopher_words_without_letters", "alpha_words_ratio", "least", "min_alpha_words_ratio"),
        Rule("gopher_stop_words", "stop_words", "least", "min_stop_words"),
    ),
    "gopher_repetition": (
        Rule("gopher_duplicate_lines", "duplicate_lines_ratio", "most", "max_duplicate_lines"),
        Rule(
            "gopher_duplicate_paragraphs",
            "duplicate_paragraphs_ratio",
            "most",
            "max_duplicate_paragraphs",
        ),
        Rule(
            "gopher_duplicate_lines_chars",
            "duplicate_lines_chars_ratio",
            "most",
            "max_duplicate_lines_chars",
        ),
        Rule("gopher_top_2gram", "top_2gram_ratio", "most", "max_top_2gram"),
        Rule("gopher_top_3gram", "top_3gram_ratio", "most", "max_top_3gram"),
        Rule("gopher_top_4gram", "top_4gram_ratio", "most", "max_top_4gram"),
        Rule("gopher_duplicate_5gram", "duplicate_5gram_ratio", "most", "max_duplicate_5gram"),
        Rule("gopher_duplicate_10gram", "duplicate_10gram_ratio", "most", "max_duplicate_10gram"),
    ),
    "c4": (Rule("c4_too_few_sentences", "sentences", "least", "min_sentences"),),
    "fineweb": (
        Rule("fineweb_line_punctuation", "line_punctuation_ratio", "least", "min_line_punctuation"),
        Rule("fineweb_short_lines", "short_lines_ratio", "most", "max_short_lines"),
        Rule(
            "fineweb_duplicate_lines_chars",
            "duplicate_lines_chars_ratio",
            "most",
            "max_duplicate_lines_chars",
        ),
        Rule("fineweb_newlines", "newline_word_ratio", "most", "max_newline_word_ratio"),
    ),
}


def first_failing(signals: Mapping[str, Any], config: CleanConfig) -> tuple[str, str] | None:
    """(reason, detail) of the first rule that refuses a document with these signals, in the order above; None if it is kept.

    The language rules come first.
    """
    if failed := failing_language(signals, config.language):
        return failed
    for name, rules in RULES.items():
        if name not in config.rules:
            continue
        thresholds = getattr(config, name)
        for rule in rules:
            value, threshold = signals[rule.signal], getattr(thresholds, rule.setting)
            if not rule.passes(value, threshold):
                return (
                    rule.name,
                    f"{rule.signal} {_shown(value)} {'<' if rule.bound == 'least' else '>'} {threshold}",
                )
    return None


def failing_language(
    signals: Mapping[str, Any], settings: LanguageSettings
) -> tuple[str, str] | None:
    """The same for the language alone, which is known before the other signals."""
    language, confidence = signals["language"], signals["language_confidence"]
    if settings.keep and language not in settings.keep:
        return (
            "language",
            f"language {language} (probability {_shown(confidence)}), kept: {', '.join(settings.keep)}",
        )
    if confidence is not None and confidence < settings.min_confidence:
        return (
            "language_unsure",
            f"language_confidence {_shown(confidence)} < {settings.min_confidence}",
        )
    return None


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
