from __future__ import annotations

import pytest

from stages.collect_chats import doctests, prose, reference


def names(module, text):
    return [entry.name for entry in reference.entries(module, text)]


def test_a_class_has_its_own_methods_and_not_the_inherited():
    text = (
        "Classes\nobject\nA\n\nclass A(object)\n\tA(x=1)\n\nA thing.\n\n"
        "Methods defined here:\nrun(self, n)\nRun it.\nstop = run(self, n)\n"
        "Methods inherited from B:\nwalk(self)\nWalk.\n\n"
        "Functions\n\nf(a, *, b=<object object>) -> int\nDo f."
    )
    entries = {entry.name: entry for entry in reference.entries("m", text)}
    assert list(entries) == ["m", "m.A", "m.A.run", "m.f"]
    assert entries["m.A"].text == "A thing."
    assert reference.shown_signature(entries["m.A"]) == "m.A(x=1)"
    assert reference.shown_signature(entries["m.A.run"]) == "m.A.run(n)"
    assert entries["m.f"].text == "Do f."


def test_the_output_of_an_example_is_no_signature():
    text = "Functions\nf(x)\nHalve.\n\n>>> f(8)\nFraction(4, 1)\n>>> f(y)\nPoint(x=1)\ng(x)\nMore."
    assert names("fractions", text) == ["fractions", "fractions.f", "fractions.g"]


def test_a_signature_that_is_said_twice_is_one_entry():
    (_, entry) = reference.entries(
        "m", "Functions\nfill(self, text)\nfill(text : string) -> string\n\nFill it."
    )
    assert entry.text.endswith("Fill it.")


def test_builtins_and_os_path_have_the_names_that_users_write():
    assert names("builtins", "Functions\nlen(obj, /)\nCount.")[1] == "len"
    assert names("posixpath", "Functions\njoin(a, *p)\nJoin.")[1] == "os.path.join"


@pytest.mark.parametrize(
    "line", ["Fraction(22, 7)", "f(x", "see f(x)", "x = f(1)", "f(x) and g(y)"]
)
def test_what_python_would_not_define_is_no_signature(line):
    assert reference.signature(line) is None


@pytest.mark.parametrize(
    ("text", "max_chars", "expected"),
    [
        ("One two. Three four.", 100, "One two. Three four."),
        ("One two. Three four.", 12, "One two."),
        ("No end mark", 100, "No end mark."),
        ("Use e.g. this one. Then stop", 20, "Use e.g. this one."),
        ("今日は。明日は。", 5, "今日は。"),
        ("今日は。明日は。", 100, "今日は。明日は。"),
        ("「晴れ！」と言った。明日は", 12, "「晴れ！」と言った。"),
        ("明日は、", 100, "明日は。"),
        ("Too long for that", 5, None),
    ],
)
def test_text_is_cut_to_whole_sentences(text, max_chars, expected):
    assert prose.whole_sentences(text, max_chars) == expected


def test_lines_of_chinese_and_japanese_are_prose_and_join_without_spaces():
    assert (
        prose.paragraph_text(["蜜蜂住在蜂箱里，", "每个蜂箱有一只蜂王。"])
        == "蜜蜂住在蜂箱里，每个蜂箱有一只蜂王。"
    )
    assert (
        prose.paragraph_text(["\u3000蜂は巣に住む。", "Python も。"])
        == "蜂は巣に住む。 Python も。"
    )
    assert prose.paragraph_text(["蜂蜜"]) is None


@pytest.mark.parametrize(
    "block",
    [["    x = 1"], [">>> f()"], ["* item"], ["=====  ====="], ["12 34 56 78"], ["# x y z"]],
)
def test_code_lists_and_tables_are_no_prose(block):
    assert prose.paragraph_text(block) is None


def test_an_example_is_shown_with_the_statements_and_the_import_that_it_needs_and_no_others():
    text = (
        "Functions\nmean(data)\nAverage.\n\n"
        ">>> other = 1\n>>> data = [1, 3]\n>>> data.append(5)\n>>> mean(data)\n3\n"
    )
    entry = list(reference.entries("statistics", text))[-1]
    (session,) = doctests.sessions(entry, {"mean"})
    assert (
        session.code
        == ">>> from statistics import mean\n>>> data = [1, 3]\n>>> data.append(5)\n>>> mean(data)"
    )
