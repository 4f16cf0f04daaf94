"""The stage as a whole: its scores, its notes, its settings, and what it asks a network for."""

from __future__ import annotations

import socket
from typing import Any, ClassVar, cast

import pytest
import torch

from data_contracts import ConfigError, InputError
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.lm_eval_tasks import score_tasks
from stages.evaluate.model import load
from stages.evaluate.scores import verdict
from stages.lm.tokenizer import ModelTokenizer
from stages.report import Report
from tests.checkpoints import tiny_checkpoint
from tests.golden.evaluate import ITEMS, PAGES
from tests.stages.evaluate.quick import QUICK, scores


def chance(items):
    return sum(1 / len(item["choices"]) for item in items) / len(items)


@pytest.mark.slow
def test_every_score_stands_beside_its_baseline_and_every_item_is_a_sample(
    publish, run, eval_items
):
    made = run("evaluate", QUICK, checkpoint=tiny_checkpoint(publish), eval_items=eval_items)
    found = scores(made)
    choices = {
        (task, metric)
        for task in ("heldout_description", "user_mc")
        for metric in ("acc", "acc_norm")
    }
    assert set(found) == choices | {("all_items", "acc"), ("heldout_pages", "bits_per_byte")}
    rows = made.read("samples").to_pylist()
    correct = [row["correct"] for row in rows if row["correct"] is not None]
    everything = found["all_items", "acc"]
    assert everything["value"] == sum(correct) / len(ITEMS)
    assert everything["baseline"] == pytest.approx(chance(ITEMS))

    items = [item for item in ITEMS if item["task"] == "heldout_description"]
    samples = [row for row in rows if row["task"] == "heldout_description"]
    assert [row["item"] for row in samples] == [item["id"] for item in items]
    for row, item in zip(samples, items, strict=True):
        likelihoods = row["loglikelihoods"]
        assert len(likelihoods) == len(item["choices"])
        assert row["predicted"] == likelihoods.index(max(likelihoods))
    score = found["heldout_description", "acc"]
    assert score["value"] == sum(row["correct"] for row in samples) / len(samples)
    assert score["baseline"] == pytest.approx(chance(items))
    assert score["n"] == len(items)
    assert score["stderr"] > 0
    assert made.manifest.facts["samples"][0]["prompt"] == "What is a string?"
    assert str(made.path.parent.parent.parent) not in (made.path / "results.json").read_text()


@pytest.mark.slow
def test_weights_that_give_no_numbers_make_scores_missing_and_not_0_or_1(publish, run, eval_items):
    def spoil(weights):
        weights["model.norm.weight"].fill_(float("nan"))

    made = run(
        "evaluate", QUICK, checkpoint=tiny_checkpoint(publish, change=spoil), eval_items=eval_items
    )
    assert {(row["value"], row["stderr"], row["n"]) for row in scores(made).values()} == {
        (None, None, 0)
    }
    assert made.rows("samples") == 0
    assert any(
        "heldout_description acc: not measured" in note for note in made.manifest.facts["notes"]
    )


@pytest.mark.slow
def test_nothing_to_evaluate_on_is_an_error_and_items_without_pages_are_not(publish, run):
    checkpoint = tiny_checkpoint(publish)
    with pytest.raises(InputError, match="0 items and 0 pages"):
        run("evaluate", QUICK, checkpoint=checkpoint, eval_items=publish("eval_items"))
    only_pages = run(
        "evaluate", QUICK, checkpoint=checkpoint, eval_items=publish("eval_items", pages=PAGES)
    )
    assert set(scores(only_pages)) == {("heldout_pages", "bits_per_byte")}
    assert any("no multiple-choice items" in note for note in only_pages.manifest.facts["notes"])
    only_items = run(
        "evaluate", QUICK, checkpoint=checkpoint, eval_items=publish("eval_items", items=ITEMS)
    )
    assert ("heldout_pages", "bits_per_byte") not in scores(only_items)


@pytest.mark.slow
def test_a_limit_takes_the_first_items_and_may_exceed_what_there_is(publish, run, eval_items):
    checkpoint = tiny_checkpoint(publish)
    few = run("evaluate", QUICK | {"limit": 2}, checkpoint=checkpoint, eval_items=eval_items)
    assert {key[0]: row["n"] for key, row in scores(few).items()} == {
        "all_items": 4,
        "heldout_description": 2,
        "user_mc": 2,
        "heldout_pages": 2,
    }
    assert few.manifest.config["limit"] == 2
    many = run("evaluate", QUICK | {"limit": 10_000}, checkpoint=checkpoint, eval_items=eval_items)
    assert scores(many)["heldout_pages", "bits_per_byte"]["n"] == len(PAGES)


@pytest.mark.parametrize(
    ("value", "stderr", "sentence"),
    [
        (0.32, 0.03, "above chance by more than two standard errors"),
        (0.30, 0.03, "NOT above chance"),
        (0.30, None, "nothing can be said"),
    ],
)
def test_the_notes_say_plainly_whether_a_score_is_above_chance(value, stderr, sentence):
    row = {
        "task": "t",
        "metric": "acc",
        "value": value,
        "stderr": stderr,
        "baseline": 0.25,
        "baseline_name": "chance",
        "higher_is_better": True,
    }
    assert sentence in verdict(row)
    assert (" above chance" in verdict(row).replace("NOT above", "")) == (
        sentence.startswith("above")
    )


@pytest.mark.slow
def test_a_task_whose_data_cannot_be_reached_is_missing_with_a_note_or_an_error_by_setting(
    publish, run, eval_items, monkeypatch
):
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    checkpoint = tiny_checkpoint(publish)
    made = run(
        "evaluate", QUICK | {"tasks": ["arc_easy"]}, checkpoint=checkpoint, eval_items=eval_items
    )
    assert scores(made)["arc_easy", "acc"]["value"] is None
    assert scores(made)["heldout_description", "acc"]["value"] is not None
    assert any(
        "arc_easy" in note and "could not be loaded" in note
        for note in made.manifest.facts["notes"]
    )
    with pytest.raises(InputError, match="arc_easy"):
        run(
            "evaluate",
            QUICK | {"tasks": ["arc_easy"], "unreachable": "error"},
            checkpoint=checkpoint,
            eval_items=eval_items,
        )
    with pytest.raises(ConfigError, match="did you mean 'arc_easy'"):
        run(
            "evaluate",
            QUICK | {"tasks": ["arc_easi"]},
            checkpoint=checkpoint,
            eval_items=eval_items,
        )


def test_a_task_file_counts_by_its_content_wherever_it_lies(tmp_path):
    def identity(*tasks):
        return EvaluateConfig.parse({"tasks": list(tasks)}, "evaluate").identity()

    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / "mine.yaml").write_text("task: mine")
    before = identity("arc_easy", str(one / "mine.yaml"))
    assert before == identity("arc_easy", str(other / "mine.yaml"))
    (one / "mine.yaml").write_text("task: mine\nnum_fewshot: 2")
    assert before != identity("arc_easy", str(one / "mine.yaml"))
    assert identity("arc_easy")["tasks"] == ["arc_easy"]
    with pytest.raises(
        InputError, match=r"evaluate.tasks: /nowhere/mine\.yaml: cannot be read: No such file"
    ):
        identity("/nowhere/mine.yaml")


def test_a_device_that_is_none_or_is_not_there_is_refused_before_the_model_is_loaded(monkeypatch):
    with pytest.raises(ConfigError, match=r"evaluate\.device = 'gpu'"):
        EvaluateConfig.parse({"device": "gpu"}, "evaluate")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        ConfigError, match=r"evaluate\.device = 'cuda:1': PyTorch sees 1 CUDA devices here"
    ):
        load(cast(Any, None), "cuda:1")


@pytest.mark.slow
def test_no_address_is_looked_up_unless_tasks_are_asked_for(publish, run, eval_items, monkeypatch):
    asked = []

    def refuse(host, *args, **settings):
        asked.append(host)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    made = run("evaluate", QUICK, checkpoint=tiny_checkpoint(publish), eval_items=eval_items)
    assert scores(made)["heldout_description", "acc"]["value"] is not None
    assert asked == []


def test_progress_tells_how_many_choices_there_are(publish, eval_items, tmp_path):
    class Recorder(Report):
        calls: ClassVar[list[tuple[float, float | None]]] = []

        def progress(self, done, total, unit):
            assert unit == "sequences"
            self.calls.append((done, total))

    model, tokenizer = load(ModelTokenizer(tiny_checkpoint(publish)), "cpu")
    config = EvaluateConfig.parse(QUICK | {"batch_size": 3}, "evaluate")
    score_tasks(config, model, tokenizer, 128, eval_items, tmp_path, Recorder())
    totals = {total for _, total in Recorder.calls}
    assert len(totals) == 1
    assert Recorder.calls[-1][0] == totals.pop() > 3
