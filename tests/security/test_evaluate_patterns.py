"""Task files of plain data: patterns that never end, and groups of tasks that do not exist."""

from __future__ import annotations

import ast
import inspect
import json
import re
import time
from pathlib import Path

import psutil
import pytest
import yaml
from lm_eval.api import metrics
from lm_eval.filters import extraction
from lm_eval.tasks import TaskManager

from data_contracts import ConfigError, InputError
from stages.evaluate import groups, harness, patterns
from tests.checkpoints import tiny_checkpoint
from tests.golden.evaluate import ITEMS
from tests.security.test_evaluate_tasks import PLAIN, QUICK, folder, mark, written

__all__ = ["folder", "mark"]  # fixtures

SLOW, TEXT = "(a+)+$", "a" * 60 + "!"


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 1)


USES = {
    "the filter regex": lambda: extraction.RegexFilter(SLOW).apply([[TEXT]], [{}]),
    "the filter multi_choice_regex": lambda: extraction.MultiChoiceRegexFilter(
        "x", regexes_to_ignore=[SLOW]
    ).apply([["b"]], [{"choices": [TEXT]}]),
    "the metric exact_match": lambda: metrics.exact_match_hf_evaluate(
        [TEXT], ["b"], regexes_to_ignore=[SLOW]
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("use", USES)
def test_a_pattern_that_never_ends_is_one_error_that_names_file_and_pattern(soon, use):
    with pytest.raises(InputError) as error, patterns.bounded("a/task.yaml"):
        USES[use]()
    assert "lm-eval task 'a/task.yaml': its pattern '(a+)+$' takes too long" in str(error.value)
    assert extraction.re is metrics.re is re


@pytest.mark.slow
def test_a_thousand_slow_searches_share_one_bound(soon):
    began = time.monotonic()
    with pytest.raises(InputError, match="takes too long"), patterns.bounded("task.yaml"):
        extraction.RegexFilter(SLOW).apply([["a" * 21 + "!"]] * 1000, [{}] * 1000)
    assert time.monotonic() - began < 30


WRONG = {
    # which limit it reaches first depends on the machine
    "more than memory": (
        "(?=(.*))",
        "a" * 20_000,
        "takes more memory|crashes|finds|takes too long",
    ),
    "long to compile": ("(?i)" + "[\\x00-\\U0010ffff]" * 2000, "a", "takes too long"),
    "nested": ("(" * 5000 + ")" * 5000, "a", "cannot be used: RecursionError|crashes"),
    "no pattern": ("(", "a", "cannot be used: error: missing"),
    "controls": ("\x1b(", "a", "cannot be used"),
}


def wrong_patterns():
    for way in WRONG:
        is_slow = way in ("more than memory", "long to compile")  # they reach the limit of time
        yield pytest.param(way, marks=[pytest.mark.slow] if is_slow else [])


@pytest.mark.parametrize("way", list(wrong_patterns()))
def test_a_pattern_that_cannot_be_used_is_one_error(soon, way):
    pattern, text, said = WRONG[way]
    with pytest.raises(InputError, match=said) as error, patterns.bounded("task.yaml"):
        extraction.RegexFilter(pattern).apply([[text]], [{}])
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("pattern", [r"#### (\-?[0-9\.\,]+)", "(a)|(b)", "x*", "(?i)ANSWER", "日."])
def test_what_is_found_is_what_re_finds(pattern):
    texts = ["#### 1,2 and #### 3", "ab", "", "the answer", "日本", "\U0001f600 x"]
    plain = re.compile(pattern)
    with patterns.bounded("task.yaml"):
        for text in texts:
            assert extraction.re.compile(pattern).findall(text) == plain.findall(text)
            assert extraction.re.sub(pattern, "", text) == plain.sub("", text)
            with pytest.raises(TypeError, match="expected string"):
                extraction.re.sub(pattern, "", 1)


def test_no_process_is_left_and_none_is_started_without_a_pattern():
    before = psutil.Process().children()
    with patterns.bounded("task.yaml"):
        assert psutil.Process().children() == before
        extraction.RegexFilter("a").apply([["a"]], [{}])
        assert len(psutil.Process().children()) == len(before) + 1
    assert psutil.Process().children() == before


def test_lm_eval_uses_no_more_of_re_than_is_bounded():
    for module in patterns.USERS:
        tree = ast.walk(ast.parse(inspect.getsource(module)))
        attributes = [
            node
            for node in tree
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        ]
        used = {node.attr for node in attributes if node.value.id == "re"}
        assert used <= {"compile", "findall", "sub", "escape"}


@pytest.fixture
def evaluate(publish, run, monkeypatch):
    monkeypatch.setattr(
        harness, "TaskManager", lambda **given: TaskManager(**given | {"include_defaults": False})
    )
    items, checkpoint = publish("eval_items", items=ITEMS[:3]), tiny_checkpoint(publish)

    def go(path: Path, **settings: object):
        return run(
            "evaluate",
            QUICK | {"tasks": [str(path)]} | settings,
            checkpoint=checkpoint,
            eval_items=items,
        )

    return go


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_task_file_whose_pattern_never_ends_costs_its_own_score(folder, evaluate, soon):
    (folder / "rows.jsonl").write_text('{"question": "one?", "answer": "' + TEXT + '"}\n')
    metric = {
        "metric": "exact_match",
        "aggregation": "mean",
        "higher_is_better": True,
        "regexes_to_ignore": [SLOW],
    }
    path = written(folder, metric_list=[metric])
    with pytest.raises(InputError, match=r"task\.yaml.*takes too long"):
        evaluate(path)
    (note,) = [
        note
        for note in evaluate(path, unreachable="note").manifest.facts["notes"]
        if "takes too long" in note
    ]
    assert "task.yaml" in note


@pytest.mark.slow
def test_a_filter_of_a_task_file_gives_the_score_that_it_gives_unbounded(folder, evaluate):
    filters = [
        {
            "name": "x",
            "filter": [
                {"function": "regex", "regex_pattern": "(.)", "fallback": "1"},
                {"function": "take_first"},
            ],
        }
    ]
    path = written(folder, filter_list=filters)
    bounded, free = (
        evaluate(path, allow_code=allowed).read("scores").to_pylist() for allowed in (False, True)
    )
    assert bounded == free
    assert any(row["task"] == "mine" for row in bounded)


GROUPS = {
    "a name": ["absent_task"],
    "a name with settings": [{"task": "absent_task", "num_fewshot": 3}],
    "in a group within": [{"group": "inner", "task": ["absent_task"]}],
    "beside one that is there": [{**PLAIN, "task": "own"}, "absent_task"],
}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, PLAIN], ids=["bare", "with settings for all"])
@pytest.mark.parametrize("way", GROUPS)
def test_a_group_that_names_a_task_that_is_absent_is_one_error(folder, evaluate, way, settings):
    data = (
        {"dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}} if settings else {}
    )
    path = folder / "group.yaml"
    path.write_text(
        json.dumps(settings | data | {"group": "g", "task": GROUPS[way]})
    )  # YAML without aliases
    with pytest.raises(
        ConfigError,
        match=r"group\.yaml: its group names absent_task, and lm-eval has no task of that name",
    ):
        evaluate(path, unreachable="note")


def test_a_group_that_names_what_is_there_or_has_it_itself_lacks_nothing(tmp_path):
    path = tmp_path / "group.yaml"
    members = [
        "there",
        {"task": "there", "num_fewshot": 1},
        {**PLAIN, "task": "own"},
        {"group": "there"},
    ]
    path.write_text(yaml.safe_dump({"group": "g", "task": members}))
    assert groups.is_group(path)
    assert groups.absent(path, {"there"}) == []
    path.write_text("group: g\ntask: [absent]\nprocess_docs: !function code.evil\n")
    assert groups.absent(path, {"there"}) == ["absent"]


@pytest.mark.parametrize(
    "text",
    [
        "group: [",
        "- x",
        "group: g\ntask: {a: 1}\n",
        "group: g\ntask: [1, {group: [a]}, {task: [b]}]\n",
    ],
)
def test_a_file_that_is_no_group_is_left_to_lm_eval(tmp_path, text):
    path = tmp_path / "group.yaml"
    path.write_text(text)
    assert groups.absent(path, {"there"}) == []
