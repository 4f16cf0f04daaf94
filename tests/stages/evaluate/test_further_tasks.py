"""Tasks of lm-eval's own, played by task files in a folder: its 14,000 take ten seconds to read, and their data lie on a hub."""

from __future__ import annotations

import json

import pytest
import yaml
from lm_eval.tasks import TaskManager

from data_contracts import InputError, Interrupted
from stages.evaluate import harness
from stages.report import Report
from tests.checkpoints import tiny_checkpoint
from tests.golden.evaluate import ITEMS

QUICK = {"prompts": [], "device": "cpu"}
WRITES = {
    "output_type": "generate_until", "test_split": "test", "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}  # fmt: skip


@pytest.fixture
def evaluate(publish, run, tmp_path, monkeypatch):
    """evaluate({"writes": {…task file…}}, context=128) → the artifact, with these tasks in the place of lm-eval's."""
    folder = tmp_path / "library"
    folder.mkdir()
    rows = [{"question": f"{'Say a number. ' * 40}{n}", "answer": str(n)} for n in range(3)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}, "cache_dir": str(folder / "c")}}
    items = publish("eval_items", items=ITEMS[:3])
    monkeypatch.setattr(
        harness,
        "TaskManager",
        lambda include_path=folder, include_defaults=False: TaskManager(include_path=include_path, include_defaults=False),
    )

    def go(tasks, context=128, **settings):
        for name, task in tasks.items():
            (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name} | data | task))
        checkpoint = tiny_checkpoint(publish, max_position_embeddings=context)
        return run("evaluate", QUICK | {"tasks": list(tasks)} | settings, checkpoint=checkpoint, eval_items=items)

    return go


def values(artifact):
    return {row["task"]: row["value"] for row in artifact.read("scores").to_pylist() if row["metric"] in ("acc", "exact_match")}


@pytest.mark.slow
@pytest.mark.parametrize("context", [48, 256])
def test_tasks_that_write_text_leave_room_for_the_question_whatever_they_wish_for(evaluate, context):
    wishes = {
        "silent": {},
        "greedy": {"max_gen_toks": 5000},
        "alias": {"max_new_tokens": 300, "max_length": 9000},
        "modest": {"max_gen_toks": 8},
    }
    made = evaluate({name: WRITES | {"generation_kwargs": {"until": ["\n"]} | wish} for name, wish in wishes.items()}, context, limit=2)
    assert {task: value for task, value in values(made).items() if task in wishes} == dict.fromkeys(wishes, 0.0)
    cut = [note for note in made.manifest.facts["notes"] if f"2 answers had room for {context // 2} tokens" in note]
    assert [note.split("'")[1] for note in cut] == ["silent", "greedy", "alias"]
    assert [row["item"] for row in made.read("samples").to_pylist() if row["task"] == "modest"] == ["0", "1"]


FAILING = {
    "absent": WRITES | {"dataset_kwargs": {"data_files": {"test": "/nowhere/rows.jsonl"}}},
    "odd": WRITES | {"output_type": "sing"},
    "undefined": WRITES | {"doc_to_text": "{{ question if answer == '0' else question.nothing.at_all }}"},
    "unsafe": WRITES | {"unsafe_code": True},
}


@pytest.mark.slow
def test_tasks_that_fail_cost_their_own_score_and_no_other(evaluate, tmp_path):
    script = tmp_path / "data.py"
    script.write_text("")
    failing = FAILING | {"script": WRITES | {"dataset_path": str(script), "dataset_kwargs": {}}}
    made = evaluate(failing | {"writes": WRITES})
    assert {task: value for task, value in values(made).items() if "_" not in task} == dict.fromkeys(failing) | {"writes": 0.0}
    assert values(made)["heldout_mc"] is not None
    notes = {
        note.split("'")[1]: note for note in made.manifest.facts["notes"] if note.startswith("lm-eval task") and "room for" not in note
    }
    assert set(notes) == set(failing)
    assert "it or its data cannot be had: FileNotFoundError: " in notes["absent"]
    assert "it or its data cannot be had: RuntimeError: Dataset scripts are no longer supported" in notes["script"]
    assert "it or its data cannot be had: ValueError: " in notes["odd"]
    assert "it cannot be evaluated: UndefinedError: " in notes["undefined"]
    assert "runs the code that the model writes" in notes["unsafe"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["odd", "undefined", "unsafe"])
def test_a_task_that_fails_stops_the_stage_if_the_settings_say_so_and_the_cause_is_kept(evaluate, name):
    with pytest.raises(InputError, match=rf"lm-eval task '{name}'(?s:.)*To repair: leave it out of|go online") as error:
        evaluate({name: FAILING[name]}, unreachable="error")
    assert (type(error.value.__cause__).__name__ in str(error.value)) == (name != "unsafe")


@pytest.mark.slow
def test_our_own_mistakes_and_a_wish_to_stop_are_no_notes_about_a_task(evaluate, monkeypatch):
    chooses = WRITES | {"output_type": "multiple_choice", "doc_to_choice": ["0", "1", "2"], "metric_list": [{"metric": "acc"}]}

    totals = set()

    def stop(self, done, total, unit):
        totals.add(total)
        if len(totals) > 1:  # the first is that of our own items
            raise Interrupted("evaluate", "stopped", "run it again")

    with monkeypatch.context() as patch:
        patch.setattr(Report, "progress", stop)
        with pytest.raises(Interrupted):
            evaluate({"chooses": chooses})
    monkeypatch.setattr(harness, "ANSWER_TOKENS", None)
    with pytest.raises(TypeError, match="NoneType"):
        evaluate({"writes": WRITES})


def test_two_texts_are_no_log_likelihood():
    assert harness.likelihoods({"filtered_resps": [["one", "other"], ["a", "b"]]}) == []
    assert harness.likelihoods({"filtered_resps": [(-1.5, False), (-0.5, True)]}) == [-1.5, -0.5]
