"""Each rule refuses the text made for it, under its own name."""

from __future__ import annotations

import random
from typing import Any

import pytest

from stages.clean.config import CleanConfig, GopherQuality
from stages.clean.rules import RULES, first_failing
from tests.stages.clean.pages import GOOD, clean

_WORDS = GOOD.replace(".", "").replace(",", "").split()
_CHANCE = random.Random(7)


def _sentence(words: int = 12) -> str:
    return " ".join(_CHANCE.sample(_WORDS, words)).capitalize() + "."


_LINES = [_sentence() for _ in range(40)]
_NGRAM = "when the old bridge was being built by the village"

TEXTS: dict[str, str] = {
    "gopher_too_few_words": "This is a short text, and that is all there is of it.",
    "gopher_too_many_words": GOOD,
    "gopher_words_too_short": " ".join(f"I am at a {c} of my to do. " for c in "abcdefghijklmnop"),
    "gopher_words_too_long": " ".join(word if n % 2 else "counterrevolutionaries" for n, word in enumerate(GOOD.split())),
    "gopher_symbols": GOOD.replace(" the ", " # the # "),
    "gopher_bullet_lines": "\n".join("- " + line for line in _LINES),
    "gopher_ellipsis_lines": "\n".join(line[:-1] + "..." if n % 2 else line for n, line in enumerate(_LINES)),
    "gopher_words_without_letters": " ".join(f"{word} {number}" if number % 2 else word for number, word in enumerate(GOOD.split())),
    "gopher_stop_words": " ".join(w for w in GOOD.split() if w.lower().strip(".,") not in GopherQuality().stop_words["en"]),
    "gopher_duplicate_lines": "\n".join([*_LINES[:20], *["See also."] * 12]),
    "gopher_duplicate_paragraphs": "\n\n".join([*map("\n".join, zip(_LINES[:10], _LINES[10:20], strict=True)), *["See this\nand it."] * 6]),
    "gopher_duplicate_lines_chars": "\n".join([*_LINES[:20], *[GOOD.split("\n")[0]] * 4]),
    "gopher_top_2gram": GOOD[:300] + " " + " ".join(f"northern pillars {word}" for word in sorted(set(_WORDS))[:20]),
    "gopher_top_3gram": GOOD[:400] + " " + " ".join(f"a northern pillar {word}" for word in sorted(set(_WORDS))[:13]),
    "gopher_top_4gram": GOOD[:450] + " " + " ".join(f"on a northern pillar {word}" for word in sorted(set(_WORDS))[:9]),
    "gopher_duplicate_5gram": GOOD[:500] + " " + " ".join(f"{_NGRAM[9:35]} {word}" for word in sorted(set(_WORDS))[:8]),
    "gopher_duplicate_10gram": GOOD[:500] + " ".join(f" {_NGRAM} {word}" for word in sorted(set(_WORDS))[:4]),
    "c4_too_few_sentences": GOOD.replace(". ", " and ").replace(".\n", " and\n"),
    "c4_curly_brackets": GOOD + " {",
    "c4_lorem_ipsum": GOOD + " Lorem ipsum.",
    "c4_no_lines": "one two\nthree four\nfive six",
    "fineweb_line_punctuation": "\n".join(line[:-1] for line in _LINES),
    "fineweb_short_lines": "\n".join([*_LINES[:6], *(_sentence(4)[:28].strip() + "." for _ in range(15))]),
    "fineweb_duplicate_lines_chars": "\n".join([*_LINES[:20], *_LINES[:3]]),
    "fineweb_newlines": "\n".join(_sentence(2) for _ in range(60)),
}  # fmt: skip

LOOSE: dict[str, dict[str, Any]] = {
    "gopher_too_many_words": {"gopher_quality": {"max_words": 60}},
    "gopher_duplicate_paragraphs": {"gopher_repetition": {"max_duplicate_lines": 1}},
    "gopher_top_3gram": {"gopher_repetition": {"max_top_2gram": 1}},
    "gopher_top_4gram": {"gopher_repetition": {"max_top_2gram": 1, "max_top_3gram": 1}},
    "gopher_duplicate_5gram": {
        "gopher_repetition": {"max_top_2gram": 1, "max_top_3gram": 1, "max_top_4gram": 1}
    },
    "gopher_duplicate_10gram": {
        "gopher_repetition": {
            "max_top_2gram": 1,
            "max_top_3gram": 1,
            "max_top_4gram": 1,
            "max_duplicate_5gram": 1,
        }
    },
    "fineweb_newlines": {"fineweb": {"max_short_lines": 1}},
}


def _rule_set(rule: str) -> str:
    return next((name for name, rules in RULES.items() if rule in [r.name for r in rules]), "c4")


@pytest.mark.parametrize("rule", TEXTS)
def test_a_text_made_for_a_rule_is_refused_by_it(rule: str) -> None:
    settings = {
        "rules": [_rule_set(rule)],
        "language": {"keep": [], "min_confidence": 0},
        **LOOSE.get(rule, {}),
    }
    row = clean(TEXTS[rule], **settings)
    assert row.get("reason") == rule, (row.get("reason"), row.get("detail"))
    assert row["text"], "a reject keeps its text"
    assert row["words"] > 0, "a reject keeps its signals"


def test_every_rule_has_a_text() -> None:
    assert {rule.name for rules in RULES.values() for rule in rules} <= set(TEXTS)


def test_plain_prose_passes_all_rule_sets() -> None:
    row = clean(GOOD)
    assert "reason" not in row, row["detail"]
    assert row["language"] == "en"


def test_the_detail_names_value_and_threshold() -> None:
    assert (
        clean("It is a short text.", rules=["gopher_quality"], language={"min_confidence": 0})[
            "detail"
        ]
        == "words 5 < 50"
    )


def test_other_thresholds_can_be_replayed_from_the_columns_alone() -> None:
    row = clean("This is a short text, and that is all there is of it.", rules=["gopher_quality"])
    assert (
        first_failing(row, CleanConfig.parse({"rules": ["gopher_quality"]}, "clean"))[0]
        == "gopher_too_few_words"
    )  # type: ignore[index]
    assert (
        first_failing(
            row,
            CleanConfig.parse(
                {"rules": ["gopher_quality"], "gopher_quality": {"min_words": 5}}, "clean"
            ),
        )
        is None
    )


@pytest.mark.parametrize(
    ("text", "settings", "reason"),
    [
        (
            "Der Garten des Hauses ist für alle geöffnet, die ihn sehen wollen, und der Eintritt ist frei.",
            {},
            "language",
        ),
        ("ok bla 77", {"language": {"min_confidence": 0.99}}, "language_unsure"),
        ("1234 ---- 5678", {}, "language"),
    ],
)
def test_languages_are_kept_by_code_and_confidence(
    text: str, settings: dict[str, Any], reason: str
) -> None:
    assert clean(text, rules=[], **settings)["reason"] == reason


def test_the_language_is_judged_before_c4_takes_out_lines() -> None:
    text = "Der Garten des Hauses ist für alle geöffnet, die ihn sehen wollen.\nStartseite\nEs ist {frei}."
    row = clean(text)
    assert (row["reason"], row["removed_lines"], row["text"]) == ("language", 0, text)
    assert row["words"] == 16, "a reject keeps its signals"


def test_all_languages_are_kept_if_none_is_named() -> None:
    row = clean(
        "Der Garten des Hauses ist für alle geöffnet, die ihn sehen wollen.",
        rules=[],
        language={"keep": []},
    )
    assert ("reason" in row, row["language"]) == (False, "de")


def test_c4_takes_out_lines_and_counts_them() -> None:
    row = clean(GOOD + "\nHome\nPlease enable JavaScript to see this page.", rules=["c4"])
    assert (row["removed_lines"], "JavaScript" in row["text"], "reason" in row) == (2, False, False)
