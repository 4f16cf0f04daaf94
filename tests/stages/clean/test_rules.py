"""Each rule rejects the text made for it, with its own name as the reason."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from stages.clean.config import CleanConfig, GopherQuality
from stages.clean.rules import RULES, first_failing
from tests.stages.clean.pages import GOOD, clean

_WORDS = GOOD.replace(".", "").replace(",", "").split()
_DISTINCT_WORDS = sorted(set(_WORDS))
_CHANCE = random.Random(7)


def _sentence(words: int = 12) -> str:
    return " ".join(_CHANCE.sample(_WORDS, words)).capitalize() + "."


def _every_other(items: list[str], change: Callable[[str], str], first: int) -> list[str]:
    """`items` with every other one changed, beginning with number `first`."""
    changed = items[:]
    for number in range(first, len(items), 2):
        changed[number] = change(items[number])
    return changed


def _long_words() -> str:
    return " ".join(_every_other(GOOD.split(), lambda word: "counterrevolutionaries", first=0))


def _words_between_numbers() -> str:
    words = GOOD.split()
    for number in range(1, len(words), 2):
        words[number] += f" {number}"
    return " ".join(words)


def _without_stop_words() -> str:
    stop_words = GopherQuality().stop_words["en"]
    return " ".join(word for word in GOOD.split() if word.lower().strip(".,") not in stop_words)


def _repeated_paragraphs() -> str:
    pairs = zip(_LINES[:10], _LINES[10:20], strict=True)
    distinct = [f"{first}\n{second}" for first, second in pairs]
    return "\n\n".join(distinct + ["See this\nand it."] * 6)


def _repeating(ngram: str, times: int) -> str:
    """`times` different phrases that all begin with `ngram`."""
    return " ".join(f"{ngram} {word}" for word in _DISTINCT_WORDS[:times])


def _mostly_short_lines() -> str:
    short = [_sentence(4)[:28].strip() + "." for _ in range(15)]
    return "\n".join(_LINES[:6] + short)


_LINES = [_sentence() for _ in range(40)]
_NGRAM = "when the old bridge was being built by the village"

GERMAN = "Der Garten des Hauses ist für alle geöffnet, die ihn sehen wollen."

TEXTS: dict[str, str] = {
    "gopher_too_few_words": "This is a short text, and that is all there is of it.",
    "gopher_too_many_words": GOOD,
    "gopher_words_too_short": " ".join(f"I am at a {c} of my to do. " for c in "abcdefghijklmnop"),
    "gopher_words_too_long": _long_words(),
    "gopher_symbols": GOOD.replace(" the ", " # the # "),
    "gopher_bullet_lines": "\n".join("- " + line for line in _LINES),
    "gopher_ellipsis_lines": "\n".join(
        _every_other(_LINES, lambda line: line[:-1] + "...", first=1)
    ),
    "gopher_words_without_letters": _words_between_numbers(),
    "gopher_stop_words": _without_stop_words(),
    "gopher_duplicate_lines": "\n".join(_LINES[:20] + ["See also."] * 12),
    "gopher_duplicate_paragraphs": _repeated_paragraphs(),
    "gopher_duplicate_lines_chars": "\n".join(_LINES[:20] + [GOOD.split("\n")[0]] * 4),
    "gopher_top_2gram": GOOD[:300] + " " + _repeating("northern pillars", 20),
    "gopher_top_3gram": GOOD[:400] + " " + _repeating("a northern pillar", 13),
    "gopher_top_4gram": GOOD[:450] + " " + _repeating("on a northern pillar", 9),
    "gopher_duplicate_5gram": GOOD[:500] + " " + _repeating(_NGRAM[9:35], 8),
    "gopher_duplicate_10gram": GOOD[:500] + " " + _repeating(_NGRAM, 4),
    "c4_too_few_sentences": GOOD.replace(". ", " and ").replace(".\n", " and\n"),
    "c4_curly_brackets": GOOD + " {",
    "c4_lorem_ipsum": GOOD + " Lorem ipsum.",
    "c4_no_lines": "one two\nthree four\nfive six",
    "fineweb_line_punctuation": "\n".join(line[:-1] for line in _LINES),
    "fineweb_short_lines": _mostly_short_lines(),
    "fineweb_duplicate_lines_chars": "\n".join(_LINES[:20] + _LINES[:3]),
    "fineweb_newlines": "\n".join(_sentence(2) for _ in range(60)),
}

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
    """The rule set of a rule. Those of C4 that remove lines or documents are not in RULES."""
    for name, rules in RULES.items():
        if any(rule == known.name for known in rules):
            return name
    return "c4"


@pytest.mark.parametrize("rule", TEXTS)
def test_a_text_made_for_a_rule_is_rejected_by_it(rule: str) -> None:
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
    row = clean("It is a short text.", rules=["gopher_quality"], language={"min_confidence": 0})
    assert row["detail"] == "words 5 < 50"


def test_other_thresholds_can_be_replayed_from_the_columns_alone() -> None:
    row = clean("This is a short text, and that is all there is of it.", rules=["gopher_quality"])
    strict = CleanConfig.parse({"rules": ["gopher_quality"]}, "clean")
    loose = CleanConfig.parse(
        {"rules": ["gopher_quality"], "gopher_quality": {"min_words": 5}}, "clean"
    )
    failure = first_failing(row, strict)
    assert failure is not None
    assert failure[0] == "gopher_too_few_words"
    assert first_failing(row, loose) is None


@pytest.mark.parametrize(
    ("text", "settings", "reason"),
    [
        (f"{GERMAN[:-1]}, und der Eintritt ist frei.", {}, "language"),
        ("ok bla 77", {"language": {"min_confidence": 0.99}}, "language_unsure"),
        ("1234 ---- 5678", {}, "language"),
    ],
)
def test_languages_are_kept_by_code_and_confidence(
    text: str, settings: dict[str, Any], reason: str
) -> None:
    assert clean(text, rules=[], **settings)["reason"] == reason


def test_the_language_is_judged_before_c4_takes_out_lines() -> None:
    text = f"{GERMAN}\nStartseite\nEs ist {{frei}}."
    row = clean(text)
    assert (row["reason"], row["removed_lines"], row["text"]) == ("language", 0, text)
    assert row["words"] == 16, "a reject keeps its signals"


def test_all_languages_are_kept_if_none_is_named() -> None:
    row = clean(GERMAN, rules=[], language={"keep": []})
    assert ("reason" in row, row["language"]) == (False, "de")


def test_c4_takes_out_lines_and_counts_them() -> None:
    row = clean(GOOD + "\nHome\nPlease enable JavaScript to see this page.", rules=["c4"])
    assert (row["removed_lines"], "JavaScript" in row["text"], "reason" in row) == (2, False, False)
