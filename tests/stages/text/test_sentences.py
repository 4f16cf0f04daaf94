"""Where sentences end, and where a text ends with one."""

from __future__ import annotations

import pytest

from stages.text.sentences import Breaks, Ending, breaks, count_ends, ends_sentence, sentences


def test_no_sentence_of_prose_ends_after_an_initial_or_before_lower_case() -> None:
    text = 'J. Smith said "yes." Then e.g. he left. and came back. Good.'
    assert sentences(text, Breaks.PROSE) == [
        'J. Smith said "yes.',
        "Then e.g. he left. and came back.",
        "Good.",
    ]


def test_chinese_sentences_need_no_space() -> None:
    assert sentences("你好。再见！", Breaks.PROSE) == ["你好。", "再见！"]
    assert sentences("你好。再见！", Breaks.LINES) == ["你好。", "再见！"]


def test_the_end_of_a_line_is_a_break_of_lines_alone() -> None:
    assert sentences("Heading\nText", Breaks.LINES) == ["Heading", "Text"]
    assert sentences("Heading\nText", Breaks.PROSE) == ["Heading\nText"]


def test_a_blank_line_is_part_of_the_break() -> None:
    (found,) = breaks("One\n\n Two", Breaks.LINES)
    assert found.group() == "\n\n "


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("One. Two! (Three?)", 3),
        ("version 1.2 of a.b", 0),
        ("一。二！三？", 3),
        ("एक। दो।", 2),
    ],
)
def test_end_marks_are_counted(text: str, count: int) -> None:
    assert count_ends(text) == count


@pytest.mark.parametrize(
    ("text", "prose", "english"),
    [
        ("Yes.", True, True),
        ('He said "yes."', True, True),
        ("See `f()`.`", False, True),
        ("And so on…", True, False),
        ("是的。」", True, False),
        ("no end", False, False),
    ],
)
def test_a_text_ends_a_sentence_by_the_marks_of_each_rule(
    text: str, prose: bool, english: bool
) -> None:
    assert ends_sentence(text, Ending.PROSE) is prose
    assert ends_sentence(text, Ending.ENGLISH) is english
