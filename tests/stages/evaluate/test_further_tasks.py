"""Further tasks: task files in a folder stand in for those of lm-eval.

lm-eval has 14,000, which take ten seconds to read, and their data are on a hub.
"""

from __future__ import annotations

import json

import pytest
import yaml
from lm_eval.tasks import TaskManager

from data_contracts import ConfigError, InputError, Interrupted
from stages.evaluate import counting_model, harness, results
from stages.report import Report
from tests.checkpoints import tiny_checkpoint
from tests.golden.evaluate import ITEMS

QUICK = {"prompts": [], "device": "cpu"}
WRITES = {
    "output_type": "generate_until",
    "test_split": "test",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
CHOOSES = WRITES | {
    "output_type": "multiple_choice",
    "doc_to_choice": ["0", "1", "2"],
    "metric_list": [{"metric": "acc"}],
}
MEAN = {"aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}]}
GROUPS = {
    "outer": MEAN | {"group": "outer", "task": ["inner", "three"]},
    "inner": MEAN | {"group": "inner", "task": ["one", "two"]},
    "one": CHOOSES,
    "two": CHOOSES | {"doc_to_choice": ["0", "1", "2", "3", "4", "5"]},
    "three": CHOOSES,
}


@pytest.fixture
def evaluate(publish, run, tmp_path, monkeypatch):
    """Return a function that evaluates with such task files, e.g. {"writes": {…}}."""
    folder = tmp_path / "library"
    folder.mkdir()
    rows = [{"question": f"{'Say a number. ' * 40}{n}", "answer": str(n)} for n in range(3)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(folder / "rows.jsonl")},
            "cache_dir": str(folder / "c"),
        },
    }
    items = publish("eval_items", items=ITEMS[:3])
    monkeypatch.setattr(
        harness,
        "TaskManager",
        lambda include_path=folder, include_defaults=False: TaskManager(
            include_path=include_path, include_defaults=False
        ),
    )

    def go(tasks, /, context=128, **settings):
        for name, task in tasks.items():
            (folder / f"{name}.yaml").write_text(
                yaml.safe_dump(task if "group" in task else {"task": name} | data | task)
            )
        checkpoint = tiny_checkpoint(publish, max_position_embeddings=context)
        return run(
            "evaluate",
            QUICK | {"tasks": list(tasks)} | settings,
            checkpoint=checkpoint,
            eval_items=items,
        )

    return go


def values(artifact):
    return {
        row["task"]: row["value"]
        for row in artifact.read("scores").to_pylist()
        if row["metric"] in ("acc", "exact_match")
    }


@pytest.mark.slow
@pytest.mark.parametrize("context", [48, 256])
def test_tasks_that_write_text_leave_half_of_the_context_to_the_question_whatever_they_ask_for(
    evaluate, context
):
    generation = {
        "silent": {},
        "greedy": {"max_gen_toks": 5000},
        "alias": {"max_new_tokens": 300, "max_length": 9000},
        "modest": {"max_gen_toks": 8},
    }
    made = evaluate(
        {
            name: WRITES | {"generation_kwargs": {"until": ["\n"]} | settings}
            for name, settings in generation.items()
        },
        context,
        limit=2,
    )
    assert {
        task: value for task, value in values(made).items() if task in generation
    } == dict.fromkeys(generation, 0.0)
    cut = [
        note
        for note in made.manifest.facts["notes"]
        if f"2 answers were limited to {context // 2} tokens" in note
    ]
    assert [note.split("'")[1] for note in cut] == ["silent", "greedy", "alias"]
    assert [row["item"] for row in made.read("samples").to_pylist() if row["task"] == "modest"] == [
        "0",
        "1",
    ]


FAILING = {
    "absent": WRITES | {"dataset_kwargs": {"data_files": {"test": "/nowhere/rows.jsonl"}}},
    "odd": WRITES | {"output_type": "sing"},
    "undefined": WRITES
    | {"doc_to_text": "{{ question if answer == '0' else question.nothing.at_all }}"},
    "unsafe": WRITES | {"unsafe_code": True},
    "endless": WRITES | {"generation_kwargs": {"max_gen_toks": "many"}},
}


@pytest.mark.slow
def test_tasks_that_fail_cost_their_own_score_and_no_other(evaluate, tmp_path):
    script = tmp_path / "data.py"
    script.write_text("")
    failing = FAILING | {"script": WRITES | {"dataset_path": str(script), "dataset_kwargs": {}}}
    made = evaluate(failing | {"writes": WRITES})
    assert {
        task: value for task, value in values(made).items() if "_" not in task
    } == dict.fromkeys(failing) | {"writes": 0.0}
    assert values(made)["heldout_description"] is not None
    notes = {
        note.split("'")[1]: note
        for note in made.manifest.facts["notes"]
        if note.startswith("lm-eval task") and "were limited to" not in note
    }
    assert set(notes) == set(failing)
    assert "it or its data could not be loaded: FileNotFoundError: " in notes["absent"]
    assert (
        "it or its data could not be loaded: RuntimeError: Dataset scripts are no longer supported"
        in notes["script"]
    )
    assert "it or its data could not be loaded: ValueError: " in notes["odd"]
    assert "it cannot be evaluated: UndefinedError: " in notes["undefined"]
    assert "it cannot be evaluated: ValueError: " in notes["endless"]
    assert "runs the code that the model writes" in notes["unsafe"]
    asks_again = {
        name
        for name, note in notes.items()
        if note.endswith("ask again: groundup stage evaluate --name NAME --as-of DATE")
    }
    assert asks_again == set(failing) - {"unsafe"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["odd", "undefined", "unsafe"])
def test_a_task_that_fails_stops_the_stage_if_the_settings_say_so_and_the_cause_is_kept(
    evaluate, name
):
    with pytest.raises(
        InputError, match=rf"lm-eval task '{name}'(?s:.)*To repair: leave it out of|go online"
    ) as error:
        evaluate({name: FAILING[name]}, unreachable="error")
    assert (type(error.value.__cause__).__name__ in str(error.value)) == (name != "unsafe")


@pytest.mark.slow
def test_our_own_mistakes_and_a_request_to_stop_are_no_notes_about_a_task(evaluate, monkeypatch):
    totals = set()

    def stop(self, done, total, unit):
        totals.add(total)
        if len(totals) > 1:  # the first is that of our own items
            raise Interrupted("evaluate", "stopped", "run it again")

    with monkeypatch.context() as patch:
        patch.setattr(Report, "progress", stop)
        with pytest.raises(Interrupted):
            evaluate({"chooses": CHOOSES})
    monkeypatch.setattr(counting_model, "ANSWER_TOKENS", None)
    with pytest.raises(TypeError, match="NoneType"):
        evaluate({"writes": WRITES})


@pytest.mark.slow
def test_a_group_of_groups_is_scored_on_all_items_beside_the_chance_of_all(evaluate):
    made = {
        row["task"]: row for row in evaluate(GROUPS, tasks=["outer"]).read("scores").to_pylist()
    }
    assert {task: made[task]["n"] for task in GROUPS} == {
        "outer": 9,
        "inner": 6,
        "one": 3,
        "two": 3,
        "three": 3,
    }
    for group, members in {"inner": ["one", "two"], "outer": ["one", "two", "three"]}.items():
        for column in ("value", "baseline"):
            assert made[group][column] == pytest.approx(
                sum(made[task][column] for task in members) / len(members)
            )


@pytest.mark.slow
def test_a_score_of_two_tasks_is_refused(evaluate):
    with pytest.raises(
        ConfigError, match="'two': 'two' would be scored twice: it is a score of 'outer'"
    ):
        evaluate(GROUPS, tasks=["outer", "two"])


@pytest.mark.slow
@pytest.mark.parametrize("task", [CHOOSES, FAILING["absent"]])
def test_a_further_task_with_the_name_of_a_benchmark_is_refused_whether_it_can_be_had_or_not(
    evaluate, task
):
    with pytest.raises(ConfigError, match="it is a score of 'eval_items'"):
        evaluate({"heldout_description": task})


@pytest.mark.slow
def test_a_task_asked_for_twice_is_scored_once(evaluate):
    rows = (
        evaluate(
            {"one": CHOOSES, "absent": FAILING["absent"]}, tasks=["one", "absent", "one", "absent"]
        )
        .read("scores")
        .to_pylist()
    )
    assert [
        row["task"] for row in rows if row["task"] in ("one", "absent") and row["metric"] == "acc"
    ] == ["one", "absent"]


@pytest.mark.slow
def test_misspelt_tasks_are_named_together_before_anything_is_evaluated(evaluate, monkeypatch):
    seen = []
    monkeypatch.setattr(Report, "progress", lambda self, *progress: seen.append(progress))
    with pytest.raises(
        ConfigError, match=r"evaluate\.tasks 'outr', 'thre': .*\n.*did you mean 'outer', 'three'\?"
    ):
        evaluate(GROUPS, tasks=["outr", "one", "thre"])
    assert seen == []


@pytest.mark.slow
def test_progress_counts_texts_that_are_written(evaluate, monkeypatch):
    reported = []
    monkeypatch.setattr(Report, "progress", lambda self, *progress: reported.append(progress))
    evaluate({"writes": WRITES}, batch_size=2)
    choices = next(total for _, total, _ in reported)
    assert reported[-2:] == [
        (choices + 2, choices + 3, "sequences"),
        (choices + 3, choices + 3, "sequences"),
    ]


def found(samples, value=0.5):
    """What lm-eval returns for a group `all` of one group of one task."""
    results = {"sample_len": len(samples), "acc,none": value, "acc_stderr,none": 0.1}
    return {
        "results": {"all": results, "part": results, "task": results},
        "samples": {"task": samples},
        "versions": {},
        "higher_is_better": {},
        "group_subtasks": {"all": ["part"], "part": ["task"]},
    }


def sample(number, *values, filter="none"):
    return {
        "doc_id": number,
        "doc": {},
        "target": 0,
        "filter": filter,
        "filtered_resps": [(value, False) for value in values],
    }


def test_a_group_with_a_log_likelihood_that_is_no_number_has_no_score():
    good, bad = sample(0, -1.0, -2.0), sample(1, -1.0, float("nan"))
    assert [
        (row["value"], row["n"], row["baseline"]) for row in results.score_rows(found([good, good]))
    ] == [(0.5, 2, 0.5)] * 3
    assert [
        (row["value"], row["n"], row["stderr"]) for row in results.score_rows(found([good, bad]))
    ] == [(None, 0, None)] * 3


def test_an_item_read_through_two_filters_is_one_sample():
    samples = [
        sample(number, filter=name) for name in ("strict", "flexible") for number in range(2)
    ]
    assert [row["item"] for row in results.sample_rows(found(samples))] == ["0", "1"]


def test_results_do_not_say_where_they_were_made_whatever_letters_that_path_has(tmp_path):
    folder = tmp_path / "é" / 'a "b"'
    made = results.merge([{"configs": {"task": {"path": f"{folder}/task.parquet"}}}], folder)
    assert made["configs"] == {"task": {"path": "./task.parquet"}}


def test_two_texts_are_no_log_likelihood():
    assert results.likelihoods({"filtered_resps": [["one", "other"], ["a", "b"]]}) == []
    assert results.likelihoods({"filtered_resps": [(-1.5, False), (-0.5, True)]}) == [-1.5, -0.5]
