from __future__ import annotations

import lzma
import math
import shutil
import socket
import subprocess
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pyarrow.parquet as pq
import pytest
import torch

from data_contracts import ConfigError, InputError
from stages.digests import digest
from stages.evaluate.bits_per_byte import (
    Page,
    bits_per_byte,
    measure,
    standard_error,
    windows,
    xz_bits_per_byte,
)
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.stage import examine, load, read_pages, verdict
from stages.evaluate.tasks import render
from stages.report import Report
from tests.checkpoints import tiny_checkpoint, tokenizer
from tests.golden.evaluate import ITEMS, PAGES

QUICK = {"prompts": ["What is a string?"], "new_tokens": 4, "device": "cpu"}


@pytest.fixture
def eval_items(publish):
    return publish("eval_items", items=ITEMS, pages=PAGES)


def scores(artifact):
    return {(row["task"], row["metric"]): row for row in artifact.read("scores").to_pylist()}


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
    everything = [row for row in made.read("samples").to_pylist() if row["correct"] is not None]
    assert found["all_items", "acc"]["value"] == sum(row["correct"] for row in everything) / len(
        ITEMS
    )
    assert found["all_items", "acc"]["baseline"] == pytest.approx(
        sum(1 / len(item["choices"]) for item in ITEMS) / len(ITEMS)
    )
    mine = [item for item in ITEMS if item["task"] == "heldout_description"]
    assert found["heldout_description", "acc"]["baseline"] == pytest.approx(
        sum(1 / len(item["choices"]) for item in mine) / len(mine)
    )
    samples = [
        row for row in made.read("samples").to_pylist() if row["task"] == "heldout_description"
    ]
    assert [row["item"] for row in samples] == [item["id"] for item in mine]
    assert [len(row["loglikelihoods"]) for row in samples] == [
        len(item["choices"]) for item in mine
    ]
    assert all(
        row["predicted"] == row["loglikelihoods"].index(max(row["loglikelihoods"]))
        for row in samples
    )
    assert found["heldout_description", "acc"]["value"] == sum(
        row["correct"] for row in samples
    ) / len(samples)
    assert found["heldout_description", "acc"]["n"] == len(mine)
    assert found["heldout_description", "acc"]["stderr"] > 0
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
        question, whole = (
            tokenizer(text)["input_ids"]
            for text in (item["question"], f"{item['question']} {choice}")
        )
        with torch.inference_mode():
            logs = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
        assert found == pytest.approx(
            sum(float(logs[at - 1, whole[at]]) for at in range(len(question), len(whole))), abs=1e-3
        )


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
            end = min(
                len(ids) - 1, 128 + 64 * max(0, math.ceil((at - 128) / 64))
            )  # of the window of 128 that scores this token
            begin = max(0, end - 128)
            with torch.inference_mode():
                nats -= float(
                    model(torch.tensor([ids[begin:at]]))
                    .logits[0, -1]
                    .double()
                    .log_softmax(-1)[ids[at]]
                )
    size = sum(len(page["text"].encode()) for page in PAGES)
    assert scores(made)["heldout_pages", "bits_per_byte"]["value"] == pytest.approx(
        nats / math.log(2) / size, rel=1e-4
    )


@pytest.mark.parametrize(
    ("count", "length", "stride"),
    [(1, 8, 4), (8, 8, 4), (9, 8, 4), (50, 8, 3), (50, 8, 1), (50, 8, 8), (50, 8, 99)],
)
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
    one, many = (
        list(measure(model, tokenizer.backend_tokenizer, 0, pages, 32, 8, size)) for size in (1, 7)
    )
    assert [page.id for page in one] == [page.id for page in many] == [page for page, _ in pages]
    assert [page.nats for page in one] == pytest.approx([page.nats for page in many], rel=1e-5)


def test_pages_without_tokens_are_counted_wherever_they_stand(publish):
    model, tokenizer = load(tiny_checkpoint(publish).path, "cpu")
    pages = [("a", ""), ("b", "Text."), ("c", ""), ("d", "")]
    for size in (1, 2, 7):
        assert [
            page.id for page in measure(model, tokenizer.backend_tokenizer, 0, pages, 32, 8, size)
        ] == ["a", "b", "c", "d"]


def test_xz_is_the_program_of_that_name_on_all_pages_in_one_file(tmp_path):
    texts = ["a page\n" * 40, "ünother, not alike\n" * 30]
    data = "".join(texts).encode()
    assert xz_bits_per_byte(texts) == 8 * len(
        lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)
    ) / len(data)
    if xz := shutil.which("xz"):
        packed = subprocess.run(
            [xz, "-9e", "-T1", "-c"], input=data, capture_output=True, check=True
        ).stdout
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


def test_an_answer_that_is_none_of_the_choices_names_the_item(publish, run):
    wrong = ITEMS[0] | {"answer": 9}
    with pytest.raises(
        InputError,
        match=rf"item {wrong['id']} .*answer 9 is none of its {len(wrong['choices'])} choices",
    ):
        run(
            "evaluate",
            QUICK,
            checkpoint=tiny_checkpoint(publish),
            eval_items=publish("eval_items", items=[wrong]),
        )


@pytest.mark.parametrize(
    ("value", "stderr", "told"),
    [
        (0.32, 0.03, "above chance by more than two standard errors"),
        (0.30, 0.03, "NOT above chance"),
        (0.30, None, "nothing can be said"),
    ],
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
        "arc_easy" in note and "cannot be had" in note for note in made.manifest.facts["notes"]
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


@pytest.mark.slow
def test_the_base_model_reads_the_same_pages_beside_the_tuned_one(publish, run, eval_items):
    tuned, base = tiny_checkpoint(publish), tiny_checkpoint(publish, "qwen3")
    made = scores(
        run("evaluate", QUICK, checkpoint=tuned, base_checkpoint=base, eval_items=eval_items)
    )
    alone = scores(run("evaluate", QUICK, checkpoint=base, eval_items=eval_items))
    assert (
        made["heldout_pages_base", "bits_per_byte"]["value"]
        == alone["heldout_pages", "bits_per_byte"]["value"]
    )
    assert (
        made["heldout_pages", "bits_per_byte"]["value"]
        != alone["heldout_pages", "bits_per_byte"]["value"]
    )


@pytest.mark.slow
def test_one_model_is_in_memory_at_a_time_and_xz_packs_the_pages_once(
    publish, run, eval_items, monkeypatch
):
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
    made = scores(
        run("evaluate", QUICK, checkpoint=tuned, base_checkpoint=base, eval_items=eval_items)
    )
    assert alive == [0, 0]
    assert packed == [[page["text"] for page in PAGES]]
    assert (
        made["heldout_pages", "bits_per_byte"]["baseline"]
        == made["heldout_pages_base", "bits_per_byte"]["baseline"]
        > 0
    )


def test_a_batch_is_read_before_the_next_windows_of_the_page_are_made(monkeypatch):
    made, read = [], []

    class Model(torch.nn.Linear):
        def get_decoder(self):
            return self.hidden_states

        def hidden_states(self, ids):
            read.append(len(ids))
            assert len(made) == sum(read)
            return SimpleNamespace(last_hidden_state=torch.zeros(*ids.shape, 1))

        def get_output_embeddings(self):
            return lambda hidden: torch.zeros(len(hidden), 500)

    def counted(*args):
        for window in windows(*args):
            made.append(window)
            yield window

    monkeypatch.setattr("stages.evaluate.bits_per_byte.windows", counted)
    [page] = measure(Model(1, 1), tokenizer(), 0, [("long", "A page. " * 500)], 16, 8, 4)
    assert page.nats == pytest.approx(len(tokenizer().encode("A page. " * 500).ids) * math.log(500))
    assert len(read) > 10


@pytest.mark.slow
def test_max_length_and_stride_reach_the_windows(publish, eval_items):
    model, words = load(tiny_checkpoint(publish).path, "cpu")
    texts = [(page["id"], page["text"]) for page in PAGES]
    config = EvaluateConfig.parse(QUICK | {"stride": 5}, "evaluate")
    for length, stride in ((24, 5), (3, 3)):  # a stride beyond the length is the length
        made = read_pages(config, model, words, length, eval_items, Report())
        assert made == list(measure(model, words.backend_tokenizer, 0, texts, length, stride, 8))
        assert made != list(measure(model, words.backend_tokenizer, 0, texts, length, 2, 8))


def test_questions_that_do_not_fit_are_noted_and_choices_that_do_not_fit_left_out(
    publish, tmp_path
):
    fits, long, hopeless = (
        ITEMS[0]
        | {"id": digest(str(n)), "question": "word " * words, "choices": ["yes", "no " * many]}
        for n, (words, many) in enumerate([(1, 1), (40, 1), (1, 60)])
    )
    items = publish("eval_items", items=[fits, long, hopeless])
    made = render(items, tmp_path, lambda text: len(text.split()), 32)
    assert (made.names, made.too_long, made.cut) == (["heldout_description"], 1, 1)
    assert pq.read_table(tmp_path / "heldout_description.parquet").column("id").to_pylist() == [
        fits["id"],
        long["id"],
    ]


@pytest.mark.parametrize(("words", "cut"), [(29, 0), (30, 0), (31, 1)])
def test_a_question_is_cut_from_the_first_token_that_the_model_cannot_read(
    publish, tmp_path, words, cut
):
    items = publish(
        "eval_items", items=[ITEMS[0] | {"question": "word " * words, "choices": ["a", "b c d"]}]
    )
    assert render(items, tmp_path, lambda text: len(text.split()), 32).cut == cut


@pytest.mark.slow
def test_the_notes_say_how_many_items_were_cut_and_left_out(publish, run):
    items = [
        ITEMS[0],
        ITEMS[1] | {"question": "word " * 60},
        ITEMS[2] | {"choices": ["yes", "no, " * 40], "answer": 0},
    ]
    settings = QUICK | {"max_length": 32, "stride": 8}
    checkpoint = tiny_checkpoint(publish)
    made = run(
        "evaluate",
        settings,
        checkpoint=checkpoint,
        eval_items=publish("eval_items", items=items, pages=PAGES),
    )
    notes = made.manifest.facts["notes"]
    assert (
        "1 items were left out: a choice is longer than the model's context of 32 tokens." in notes
    )
    assert (
        "1 items were asked without the beginning of their question: the model's context is 32 tokens."
        in notes
    )
    assert [
        row["item"] for row in made.read("samples").to_pylist() if row["predicted"] is not None
    ] == [item["id"] for item in items[:2]]
    model, words = load(checkpoint.path, "cpu")
    words.backend_tokenizer.encode_special_tokens = True
    pages = list(
        measure(
            model,
            words.backend_tokenizer,
            0,
            [(page["id"], page["text"]) for page in PAGES],
            32,
            8,
            8,
        )
    )
    assert scores(made)["heldout_pages", "bits_per_byte"]["value"] == bits_per_byte(pages)


@pytest.mark.parametrize("name", ["all_items", "heldout_pages", "heldout_pages_base"])
def test_a_benchmark_with_the_name_of_a_score_of_the_stage_is_refused(publish, tmp_path, name):
    items = publish("eval_items", items=[ITEMS[0] | {"task": name}])
    with pytest.raises(
        InputError, match=f"its task is called '{name}', as a score of this stage is"
    ):
        render(items, tmp_path, len, 32)


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
        load(Path("/nowhere"), "cuda:1")


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
    class Ear(Report):
        told: ClassVar[list[tuple[float, float | None]]] = []

        def progress(self, done, total, unit):
            assert unit == "sequences"
            self.told.append((done, total))

    model, tokenizer = load(tiny_checkpoint(publish).path, "cpu")
    config = EvaluateConfig.parse(QUICK | {"batch_size": 3}, "evaluate")
    examine(config, model, tokenizer, 128, eval_items, tmp_path, Ear())
    totals = {total for _, total in Ear.told}
    assert len(totals) == 1
    assert Ear.told[-1][0] == totals.pop() > 3
