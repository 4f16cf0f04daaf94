"""A task file of lm-eval runs nothing that its author chose, unless evaluate.allow_code is set."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from lm_eval.api import metrics  # noqa: F401  registers them
from lm_eval.api.registry import metric_registry
from lm_eval.tasks import TaskManager

from data_contracts import ConfigError, InputError
from stages.evaluate import harness, isolation, task_files
from stages.evaluate.config import EvaluateConfig
from tests.checkpoints import tiny_checkpoint
from tests.golden.evaluate import ITEMS

QUICK = {"prompts": [], "device": "cpu", "unreachable": "error"}
PLAIN = {
    "task": "mine",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{ question.strip() }}",
    "doc_to_target": "{{ answer }}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
EVIL = "import pathlib\npathlib.Path({mark!r}).touch()\n\ndef evil(*_, **__):\n    return ''\n"


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Created by any code that runs."""
    return tmp_path / "owned"


@pytest.fixture
def folder(tmp_path: Path, mark: Path) -> Path:
    """A folder with a Python module, a data file, and a metric in a folder named after it."""
    made = tmp_path / "tasks"
    (made / "metric").mkdir(parents=True)
    (made / "code.py").write_text(EVIL.format(mark=str(mark)))
    (made / "metric" / "metric.py").write_text(EVIL.format(mark=str(mark)))
    (made / "rows.jsonl").write_text(json.dumps({"question": "one?", "answer": "1"}) + "\n")
    return made


def written(folder: Path, text: str = "", name: str = "task.yaml", **changes: object) -> Path:
    """Write a valid task with changed settings and more lines at the end."""
    data = {"data_files": {"test": str(folder / "rows.jsonl")}, "cache_dir": str(folder / "cache")}
    path = folder / name
    path.write_text(yaml.safe_dump(PLAIN | {"dataset_kwargs": data} | changes) + text)
    return path


JINJA = "{{ cycler.__init__.__globals__.os.system('touch MARK') }}"
WAYS = {
    "a function": {"text": "process_docs: !function code.evil\n"},
    "a function in a list": {
        "text": "filter_list:\n- filter:\n  - function: !function code.evil\n"
    },
    "a function of an installed module": {"text": "process_results: !function os.system\n"},
    "a class": {"text": "class: !function code.Evil\n"},
    "a class by name": {"changes": {"class": "code.Evil"}},
    "Python of YAML": {"text": "x: !!python/object/apply:os.system [touch MARK]\n"},
    "a template": {"changes": {"doc_to_text": JINJA}},
    "a template of choices": {"changes": {"doc_to_choice": JINJA}},
    "a template of examples": {"changes": {"fewshot_config": {"doc_to_text": JINJA}}},
    "a metric of a folder": {"changes": {"metric_list": [{"metric": "FOLDER/metric"}]}},
    "a metric of a hub": {"changes": {"metric_list": [{"metric": "rouge"}]}},
    "evaluate's metric": {"changes": {"metric_list": [{"metric": "f1", "hf_evaluate": True}]}},
    "a script of data": {"changes": {"dataset_path": "FOLDER/code.py"}},
    "a folder of data": {"changes": {"dataset_path": "FOLDER"}},
    "pickles": {"changes": {"dataset_path": "pandas"}},
    "a database": {"changes": {"dataset_path": "sql"}},
    "a prompt": {"changes": {"use_prompt": "FOLDER/prompts.yaml:one"}},
    "generation of a hub": {
        "changes": {"generation_kwargs": {"until": ["."], "custom_generate": "a/b"}}
    },
    "trust": {"changes": {"dataset_kwargs": {"trust_remote_code": True}}},
    "a file system that writes": {
        "changes": {
            "dataset_kwargs": {
                "data_files": {"test": "FOLDER/rows.jsonl"},
                "storage_options": {"filecache": {"cache_storage": "/elsewhere"}},
            }
        }
    },
    "an address that writes": {
        "changes": {"dataset_kwargs": {"data_files": {"test": ["filecache://FOLDER/rows.jsonl"]}}}
    },
    "a chained address": {
        "changes": {"dataset_kwargs": {"data_dir": "simplecache::https://example.org/x"}}
    },
    "a reader's engine": {"changes": {"dataset_kwargs": {"engine": "python", "sep": "(a+)+b"}}},
    "data settings that are none": {"changes": {"dataset_kwargs": ["x"]}},
    "a nested loop": {
        "changes": {
            "doc_to_text": "{% for a in range(99999) %}"
            "{% for b in range(99999) %}{% endfor %}{% endfor %}"
        }
    },
    "doubling": {"changes": {"doc_to_text": "{{ 'a' * 10**10 }}"}},
    "a slow pattern": {"changes": {"doc_to_text": "{{ question | regex_replace('(a+)+$', '') }}"}},
    "an alias": {"text": "x: &x [1]\ny: *x\n"},
    "no task": {"changes": {"group": "g", "task": [{"task": "inner", "doc_to_text": JINJA}]}},
}


def attack(folder: Path, mark: Path, way: str) -> Path:
    text, changes = WAYS[way].get("text", ""), WAYS[way].get("changes", {})
    path = written(folder, text, **changes)  # type: ignore[arg-type]
    path.write_text(path.read_text().replace("FOLDER", str(folder)).replace("MARK", str(mark)))
    return path


PLAIN_DATA: dict[str, object] = {
    "a file by its relative path": {"data_files": {"test": "rows.jsonl"}},
    "files of a hub": {"data_files": ["hf://datasets/a/b/rows.jsonl", "https://example.org/r"]},
    "no code": {"trust_remote_code": False, "streaming": True},
    "nothing": None,
}


@pytest.mark.parametrize("data", PLAIN_DATA)
def test_a_task_file_may_name_its_data(folder, data):
    path = written(folder, dataset_kwargs=PLAIN_DATA[data])
    assert list(task_files.code_in(path)) == []


@pytest.mark.parametrize("way", WAYS)
def test_a_task_file_that_would_run_code_is_refused_before_anything_else_is_done(folder, mark, way):
    path = attack(folder, mark, way)
    with pytest.raises(ConfigError, match=r"may run code that its author chose") as error:
        EvaluateConfig(tasks=[str(path)]).identity()
    assert "evaluate.allow_code=true" in error.value.fix
    assert not mark.exists()


@pytest.mark.parametrize("way", ["a function", "a template", "a metric of a folder"])
def test_a_file_that_includes_one_that_would_run_code_is_refused(folder, mark, way):
    attack(folder, mark, way).rename(folder / "inner.yaml")
    (folder / "middle.yaml").write_text("include: [inner.yaml]\n")
    path = written(folder, include="middle.yaml")
    with pytest.raises(ConfigError, match="may run code"):
        EvaluateConfig(tasks=[str(path)]).identity()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "a: " * 5000,
        "",
        "- x\n",
        "\x00",
        "x: !!binary a\n",
        "root:x:0:0:secret",
        "a: &a [*a]",
    ],
)
def test_a_file_that_is_no_task_is_refused_and_nothing_of_it_repeated(folder, text):
    path = folder / "task.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        EvaluateConfig(tasks=[str(path)]).identity()
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("name", ["\\0", "\\ud800", "nowhere.yaml", "/", "~nobody-of-that-name/x"])
def test_an_include_that_no_file_can_be_is_one_error(folder, name):
    (folder / "task.yaml").write_text(f'include: "{name}"\n')
    with pytest.raises(ConfigError, match="cannot be read"):
        list(task_files.code_in(folder / "task.yaml"))


def test_files_that_include_each_other_are_read_once(folder):
    (folder / "a.yaml").write_text("include: b.yaml\n")
    (folder / "b.yaml").write_text("include: a.yaml\n")
    assert list(task_files.code_in(folder / "a.yaml")) == []


@pytest.mark.parametrize(
    "template",
    [
        "question",
        "{{question}}",
        "Q: {{ question.strip() }}\nA:",
        "{{ choices[answer] }}",
        "{{ choices.label.index(key) }}",
        "{{ ['a', b, c] }}",
        "{{ (a | trim ~ ', ' ~ b | lower) if a is defined else b[:20] }}",
        "{% if a == 'x' and not b %}yes{% else %}{{ a | default('no') }}{% endif %}",
    ],
)
def test_templates_that_only_show_a_row_are_taken(folder, template):
    path = written(folder, doc_to_text=template)
    assert EvaluateConfig(tasks=[str(path)]).identity()["tasks"][0][0] == path.name
    assert list(task_files.code_in(path)) == []


def test_the_metrics_that_are_taken_are_those_of_the_library():
    assert set(metric_registry.keys()) == task_files.METRICS


@pytest.fixture
def evaluate(publish, run, monkeypatch):
    """evaluate(path, allow_code=True) → the artifact; lm-eval's own 14,000 tasks are left out."""
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
def test_a_plain_task_file_is_evaluated(folder, evaluate):
    made = {
        row["task"]: row["value"] for row in evaluate(written(folder)).read("scores").to_pylist()
    }
    assert made["mine"] == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("way", ["a function", "a template", "a metric of a folder"])
def test_the_code_of_a_file_runs_if_and_only_if_that_is_allowed(folder, mark, evaluate, way):
    path = attack(folder, mark, way)
    with pytest.raises(ConfigError, match="may run code"):
        evaluate(path)
    assert not mark.exists()
    with suppress(InputError):  # it ran; whether it works as a task does not matter
        evaluate(path, allow_code=True)
    assert mark.exists()


@pytest.mark.slow
def test_the_stage_looks_again_at_a_file_that_changed_after_its_id_was_computed(
    folder, mark, evaluate, monkeypatch
):
    monkeypatch.setattr(EvaluateConfig, "identity", lambda self: {"tasks": self.tasks})
    with pytest.raises(ConfigError, match="may run code"):
        evaluate(attack(folder, mark, "a function"))
    assert not mark.exists()


def test_a_metric_is_not_fetched_also_where_the_library_goes_on_without_it(folder, mark):
    from lm_eval.api.registry import get_metric

    with (
        pytest.raises(InputError, match="is code that the library evaluate fetches") as error,
        isolation.no_metrics_from_hubs("mine"),
    ):
        assert get_metric(str(folder / "metric")) is None
    assert "allow_code" in error.value.fix
    assert not mark.exists()
