"""Multiple-choice items: how they are asked, and what happens to those that do not fit."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
import torch

from data_contracts import InputError
from stages.digests import digest
from stages.evaluate.bits_per_byte import bits_per_byte, measure
from stages.evaluate.model import load
from stages.evaluate.tasks import render
from stages.lm.tokenizer import ModelTokenizer
from tests.checkpoints import tiny_checkpoint
from tests.golden.evaluate import ITEMS, PAGES
from tests.stages.evaluate.quick import QUICK, scores


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
        "1 items were asked without the beginning of their question: "
        "the model's context is 32 tokens." in notes
    )
    samples = made.read("samples").to_pylist()
    asked = [row["item"] for row in samples if row["predicted"] is not None]
    assert asked == [item["id"] for item in items[:2]]
    model, words = load(ModelTokenizer(checkpoint), "cpu")
    words.backend_tokenizer.encode_special_tokens = True
    texts = [(page["id"], page["text"]) for page in PAGES]
    pages = list(measure(model, words.backend_tokenizer, 0, texts, 32, 8, 8))
    assert scores(made)["heldout_pages", "bits_per_byte"]["value"] == bits_per_byte(pages)


@pytest.mark.parametrize("name", ["all_items", "heldout_pages", "heldout_pages_base"])
def test_a_benchmark_with_the_name_of_a_score_of_the_stage_is_refused(publish, tmp_path, name):
    items = publish("eval_items", items=[ITEMS[0] | {"task": name}])
    with pytest.raises(
        InputError, match=f"its task is called '{name}', as a score of this stage is"
    ):
        render(items, tmp_path, len, 32)


@pytest.mark.slow
def test_log_likelihoods_are_those_of_the_model(publish, run, eval_items):
    checkpoint = tiny_checkpoint(publish)
    made = run("evaluate", QUICK | {"batch_size": 3}, checkpoint=checkpoint, eval_items=eval_items)
    model, tokenizer = load(ModelTokenizer(checkpoint), "cpu")
    row = made.read("samples").to_pylist()[0]
    item = next(item for item in ITEMS if item["id"] == row["item"])
    for choice, found in zip(item["choices"], row["loglikelihoods"], strict=True):
        question, whole = (
            tokenizer(text)["input_ids"]
            for text in (item["question"], f"{item['question']} {choice}")
        )
        with torch.inference_mode():
            logs = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
        positions = range(len(question), len(whole))
        expected = sum(float(logs[at - 1, whole[at]]) for at in positions)
        assert found == pytest.approx(expected, abs=1e-3)
