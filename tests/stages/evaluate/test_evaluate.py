from __future__ import annotations

import lzma
import math
import shutil
import subprocess
import weakref
from typing import ClassVar

import pytest
import torch

from data_contracts import ConfigError, InputError
from stages.evaluate.bits_per_byte import Page, bits_per_byte, measure, standard_error, windows, xz_bits_per_byte
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.stage import examine, load, verdict
from stages.report import Report
from tests.checkpoints import tiny_checkpoint
from tests.golden.evaluate import ITEMS, PAGES

QUICK = {"prompts": ["What is a string?"], "new_tokens": 4, "device": "cpu"}


@pytest.fixture
def eval_items(publish):
    return publish("eval_items", items=ITEMS, pages=PAGES)


def scores(artifact):
    return {(row["task"], row["metric"]): row for row in artifact.read("scores").to_pylist()}


@pytest.mark.slow
def test_every_score_stands_beside_its_baseline_and_every_item_is_a_sample(publish, run, eval_items):
    made = run("evaluate", QUICK, checkpoint=tiny_checkpoint(publish), eval_items=eval_items)
    found = scores(made)
    choices = {(task, metric) for task in ("heldout_mc", "user_mc") for metric in ("acc", "acc_norm")}
    assert set(found) == choices | {("all_items", "acc"), ("heldout_pages", "bits_per_byte")}
    everything = [row for row in made.read("samples").to_pylist() if row["correct"] is not None]
    assert found["all_items", "acc"]["value"] == sum(row["correct"] for row in everything) / len(ITEMS)
    assert found["all_items", "acc"]["baseline"] == pytest.approx(sum(1 / len(item["choices"]) for item in ITEMS) / len(ITEMS))
    mine = [item for item in ITEMS if item["task"] == "heldout_mc"]
    assert found["heldout_mc", "acc"]["baseline"] == pytest.approx(sum(1 / len(item["choices"]) for item in mine) / len(mine))
    samples = [row for row in made.read("samples").to_pylist() if row["task"] == "heldout_mc"]
    assert [row["item"] for row in samples] == [item["id"] for item in mine]
    assert [len(row["loglikelihoods"]) for row in samples] == [len(item["choices"]) for item in mine]
    assert all(row["predicted"] == row["loglikelihoods"].index(max(row["loglikelihoods"])) for row in samples)
    assert found["heldout_mc", "acc"]["value"] == sum(row["correct"] for row in samples) / len(samples)
    assert found["heldout_mc", "acc"]["n"] == len(mine)
    assert found["heldout_mc", "acc"]["stderr"] > 0
    assert made.manifest.facts["samples"][0]["prompt"] == "What is a string?"
    assert str(made.path.parent.parent.parent) not in (made.path / "results.json").read_text()


@pytest.mark.slow
def test_log_likelihoods_are_those_of_the_model(publish, run, eval_items):
    checkpoint = tiny_checkpoint(publish)
    made = run("evaluate", QUICK | {"batch_size": 3}, checkpoint=checkpoint, eval_items=eval_items)
    model, tokenizer = load(checkpoint.path, "cpu")
    row = made.read("samples").to_pylist()[0]
    item = next(item for item in ITEMS if item["id"] == row["item"])
    for choice, found in zip(item["choices"], row["loglikelihoods"], strict=True):
        question, whole = (tokenizer(text)["input_ids"] for text in (item["question"], f"{item['question']} {choice}"))
        with torch.inference_mode():
            logs = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
        assert found == pytest.approx(sum(float(logs[at - 1, whole[at]]) for at in range(len(question), len(whole))), abs=1e-3)


@pytest.mark.slow
def test_bits_per_byte_of_whole_pages_are_those_of_the_model(publish, run, eval_items):
    checkpoint = tiny_checkpoint(publish)
    made = run("evaluate", QUICK, checkpoint=checkpoint, eval_items=eval_items)
    model, tokenizer = load(checkpoint.path, "cpu")
    tokenizer.backend_tokenizer.encode_special_tokens = True
    nats = 0.0
    for page in PAGES:
        ids = [0, *tokenizer.backend_tokenizer.encode(page["text"]).ids]
        for at in range(1, len(ids)):
            end = min(len(ids) - 1, 128 + 64 * max(0, math.ceil((at - 128) / 64)))  # of the window of 128 that scores this token
            begin = max(0, end - 128)
            with torch.inference_mode():
                nats -= float(model(torch.tensor([ids[begin:at]])).logits[0, -1].double().log_softmax(-1)[ids[at]])
    size = sum(len(page["text"].encode()) for page in PAGES)
    assert scores(made)["heldout_pages", "bits_per_byte"]["value"] == pytest.approx(nats / math.log(2) / size, rel=1e-4)


@pytest.mark.parametrize(("count", "length", "stride"), [(1, 8, 4), (8, 8, 4), (9, 8, 4), (50, 8, 3), (50, 8, 1), (50, 8, 8), (50, 8, 99)])
def test_windows_score_each_token_once_with_the_context_promised(count, length, stride):
    tokens = list(range(100, 100 + count))
    scored = []
    for window in windows(0, 7, tokens, length, stride):
        assert len(window.inputs) == len(window.targets) <= length
        assert window.inputs[1:] == window.targets[:-1]
        if scored:
            assert window.seen >= length - min(stride, length)
        scored += window.targets[window.seen :]
    assert scored == tokens


def test_the_size_of_batches_does_not_change_what_a_page_costs(publish):
    checkpoint = tiny_checkpoint(publish)
    model, tokenizer = load(checkpoint.path, "cpu")
    pages = [(page["id"], page["text"]) for page in [*PAGES, {"id": "e", "text": "\x00"}, *PAGES]]
    one, many = (list(measure(model, tokenizer.backend_tokenizer, 0, pages, 32, 8, size)) for size in (1, 7))
    assert [page.id for page in one] == [page.id for page in many] == [page for page, _ in pages]
    assert [page.nats for page in one] == pytest.approx([page.nats for page in many], rel=1e-5)


def test_pages_without_tokens_are_counted_wherever_they_stand(publish):
    model, tokenizer = load(tiny_checkpoint(publish).path, "cpu")
    pages = [("a", ""), ("b", "Text."), ("c", ""), ("d", "")]
    for size in (1, 2, 7):
        assert [page.id for page in measure(model, tokenizer.backend_tokenizer, 0, pages, 32, 8, size)] == ["a", "b", "c", "d"]


def test_xz_is_the_program_of_that_name_on_all_pages_in_one_file(tmp_path):
    texts = ["a page\n" * 40, "ünother, not alike\n" * 30]
    data = "".join(texts).encode()
    assert xz_bits_per_byte(texts) == 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)) / len(data)
    if xz := shutil.which("xz"):
        packed = subprocess.run([xz, "-9e", "-T1", "-c"], input=data, capture_output=True, check=True).stdout
        assert xz_bits_per_byte(texts) == 8 * len(packed) / len(data)


def test_the_standard_error_shrinks_with_pages_and_is_unknown_for_one():
    pages = [Page(str(n), 100.0 + 10 * (n % 3), 100) for n in range(9)]
    assert bits_per_byte(pages) == pytest.approx(110 / 100 / math.log(2))
    assert standard_error(pages) == pytest.approx(math.sqrt(75 / 9) / 100 / math.log(2))
    assert standard_error(pages[:1]) is None
    assert bits_per_byte([]) is None


@pytest.mark.slow
def test_weights_that_give_no_numbers_make_scores_missing_and_not_0_or_1(publish, run, eval_items):
    def spoil(weights):
        weights["model.norm.weight"].fill_(float("nan"))

    made = run("evaluate", QUICK, checkpoint=tiny_checkpoint(publish, change=spoil), eval_items=eval_items)
    assert {(row["value"], row["stderr"], row["n"]) for row in scores(made).values()} == {(None, None, 0)}
    assert made.rows("samples") == 0
    assert any("heldout_mc acc: not measured" in note for note in made.manifest.facts["notes"])


@pytest.mark.slow
def test_nothing_to_evaluate_on_is_an_error_and_items_without_pages_are_not(publish, run):
    checkpoint = tiny_checkpoint(publish)
    with pytest.raises(InputError, match="0 items and 0 pages"):
        run("evaluate", QUICK, checkpoint=checkpoint, eval_items=publish("eval_items"))
    only_pages = run("evaluate", QUICK, checkpoint=checkpoint, eval_items=publish("eval_items", pages=PAGES))
    assert set(scores(only_pages)) == {("heldout_pages", "bits_per_byte")}
    assert any("no multiple-choice items" in note for note in only_pages.manifest.facts["notes"])
    only_items = run("evaluate", QUICK, checkpoint=checkpoint, eval_items=publish("eval_items", items=ITEMS))
    assert ("heldout_pages", "bits_per_byte") not in scores(only_items)


@pytest.mark.slow
def test_a_limit_takes_the_first_items_and_may_exceed_what_there_is(publish, run, eval_items):
    checkpoint = tiny_checkpoint(publish)
    few = run("evaluate", QUICK | {"limit": 2}, checkpoint=checkpoint, eval_items=eval_items)
    assert {key[0]: row["n"] for key, row in scores(few).items()} == {"all_items": 4, "heldout_mc": 2, "user_mc": 2, "heldout_pages": 2}
    assert few.manifest.config["limit"] == 2
    many = run("evaluate", QUICK | {"limit": 10_000}, checkpoint=checkpoint, eval_items=eval_items)
    assert scores(many)["heldout_pages", "bits_per_byte"]["n"] == len(PAGES)


def test_an_answer_that_is_none_of_the_choices_names_the_item(publish, run):
    wrong = ITEMS[0] | {"answer": 9}
    with pytest.raises(InputError, match=rf"item {wrong['id']} .*answer 9 is none of its {len(wrong['choices'])} choices"):
        run("evaluate", QUICK, checkpoint=tiny_checkpoint(publish), eval_items=publish("eval_items", items=[wrong]))


@pytest.mark.parametrize(
    ("value", "stderr", "told"),
    [(0.32, 0.03, "above chance by more than two standard errors"), (0.30, 0.03, "NOT above chance"), (0.30, None, "nothing can be said")],
)
def test_the_notes_say_plainly_whether_a_score_is_above_chance(value, stderr, told):
    row = {
        "task": "t",
        "metric": "acc",
        "value": value,
        "stderr": stderr,
        "baseline": 0.25,
        "baseline_name": "chance",
        "higher_is_better": True,
    }
    assert told in verdict(row)
    assert (" above chance" in verdict(row).replace("NOT above", "")) == (told.startswith("above"))


@pytest.mark.slow
def test_a_task_whose_data_cannot_be_reached_is_missing_with_a_note_or_an_error_by_setting(publish, run, eval_items, monkeypatch):
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    checkpoint = tiny_checkpoint(publish)
    made = run("evaluate", QUICK | {"tasks": ["arc_easy"]}, checkpoint=checkpoint, eval_items=eval_items)
    assert scores(made)["arc_easy", "acc"]["value"] is None
    assert scores(made)["heldout_mc", "acc"]["value"] is not None
    assert any("arc_easy" in note and "cannot be had" in note for note in made.manifest.facts["notes"])
    with pytest.raises(InputError, match="arc_easy"):
        run("evaluate", QUICK | {"tasks": ["arc_easy"], "unreachable": "error"}, checkpoint=checkpoint, eval_items=eval_items)
    with pytest.raises(ConfigError, match="did you mean 'arc_easy'"):
        run("evaluate", QUICK | {"tasks": ["arc_easi"]}, checkpoint=checkpoint, eval_items=eval_items)


@pytest.mark.slow
def test_the_base_model_reads_the_same_pages_beside_the_tuned_one(publish, run, eval_items):
    tuned, base = tiny_checkpoint(publish), tiny_checkpoint(publish, "qwen3")
    made = scores(run("evaluate", QUICK, checkpoint=tuned, base_checkpoint=base, eval_items=eval_items))
    alone = scores(run("evaluate", QUICK, checkpoint=base, eval_items=eval_items))
    assert made["heldout_pages_base", "bits_per_byte"]["value"] == alone["heldout_pages", "bits_per_byte"]["value"]
    assert made["heldout_pages", "bits_per_byte"]["value"] != alone["heldout_pages", "bits_per_byte"]["value"]


@pytest.mark.slow
def test_one_model_is_in_memory_at_a_time_and_xz_packs_the_pages_once(publish, run, eval_items, monkeypatch):
    models, alive, packed = [], [], []

    def watched(folder, device):
        alive.append(sum(model() is not None for model in models))
        model, tokenizer = load(folder, device)
        models.append(weakref.ref(model))
        return model, tokenizer

    def counted(texts):
        packed.append(list(texts))
        return xz_bits_per_byte(packed[-1])

    monkeypatch.setattr("stages.evaluate.stage.load", watched)
    monkeypatch.setattr("stages.evaluate.stage.xz_bits_per_byte", counted)
    tuned, base = tiny_checkpoint(publish), tiny_checkpoint(publish, "qwen3")
    made = scores(run("evaluate", QUICK, checkpoint=tuned, base_checkpoint=base, eval_items=eval_items))
    assert alive == [0, 0]
    assert packed == [[page["text"] for page in PAGES]]
    assert made["heldout_pages", "bits_per_byte"]["baseline"] == made["heldout_pages_base", "bits_per_byte"]["baseline"] > 0


def test_progress_tells_how_many_choices_there_are(publish, eval_items, tmp_path):
    class Ear(Report):
        told: ClassVar[list[tuple[float, float | None]]] = []

        def progress(self, done, total, unit):
            assert unit == "choices"
            self.told.append((done, total))

    model, tokenizer = load(tiny_checkpoint(publish).path, "cpu")
    config = EvaluateConfig.parse(QUICK | {"batch_size": 3}, "evaluate")
    examine(config, model, tokenizer, 128, eval_items, tmp_path, Ear())
    totals = {total for _, total in Ear.told}
    assert len(totals) == 1
    assert Ear.told[-1][0] == totals.pop() > 3
