from __future__ import annotations

import dataclasses
import math
from collections import Counter

import pytest
import torch

from data_contracts import InputError
from stages.dpo import pairs as pairs_of
from stages.dpo.loss import answer_logprobs, compare, preference_loss
from stages.dpo.pairs import PairBatches
from stages.lm.chat import ChatFormat
from stages.lm.checkpoint import load_model
from stages.lm.loss import IGNORED
from stages.lm.tokenizer import ModelTokenizer
from stages.report import Report
from tests.golden import dpo as golden
from tests.golden import sft


def settings(**training):
    return golden.SETTINGS | {"training": golden.SETTINGS["training"] | training}


def test_the_first_loss_is_ln_2_and_training_raises_the_margin_on_held_out_pairs_too(run, publish):
    figures = run(
        "dpo", settings(duration=40, learning_rate=3e-3), **golden.inputs(publish)
    ).manifest.facts["figures"]
    assert figures["loss_at_step_0"] == pytest.approx(math.log(2), abs=1e-5)
    assert figures["reward_accuracy"] == 1.0
    assert figures["reward_margin"] > 0.5
    assert figures["heldout_accuracy"] == 1.0
    assert figures["heldout_loss"] < math.log(2) - 0.1


def test_a_first_step_that_is_skipped_leaves_the_first_loss_unknown(run, publish, monkeypatch):
    def spoilt(*settings):
        steps = [float("nan")]

        def loss(model, batch):
            found = preference_loss(*settings)(model, batch)
            return dataclasses.replace(found, total=found.total * (steps.pop() if steps else 1.0))

        return loss

    monkeypatch.setattr("stages.dpo.stage.preference_loss", spoilt)
    made = run("dpo", golden.SETTINGS, **golden.inputs(publish))
    assert made.read("metrics").to_pylist()[0]["skipped"]
    assert made.manifest.facts["figures"]["loss_at_step_0"] is None
    assert [note for note in made.manifest.facts["notes"] if "first loss" in note] == []


def test_a_micro_batch_has_room_for_both_answers_of_its_pairs(run, publish, monkeypatch):
    seen = set()

    def counting(*settings):
        loss = preference_loss(*settings)
        return lambda model, batch: seen.add(len(batch["ids"])) or loss(model, batch)

    monkeypatch.setattr("stages.dpo.stage.preference_loss", counting)
    monkeypatch.setattr("stages.lm.training.step.MICRO_BATCH_TOKENS", {"cpu": 4 * 96})
    run("dpo", settings(duration=1), **golden.inputs(publish))
    assert seen == {2}


def test_metrics_tell_accuracy_and_margin_at_every_step(run, publish):
    metrics = run("dpo", golden.SETTINGS, **golden.inputs(publish)).read("metrics").to_pylist()
    assert [row["step"] for row in metrics] == list(range(6))
    assert metrics[0]["reward_margin"] == pytest.approx(0, abs=1e-5)
    assert metrics[-1]["reward_margin"] > metrics[1]["reward_margin"]


def test_one_pair_is_enough(run, publish):
    one = publish("preferences", pairs=golden.pairs(1, 0))
    figures = run(
        "dpo", golden.SETTINGS, checkpoint=sft.checkpoint(publish), preferences=one
    ).manifest.facts["figures"]
    assert (figures["pairs"], figures["heldout_accuracy"]) == (1, None)
    assert figures["loss_at_step_0"] == pytest.approx(math.log(2), abs=1e-5)


def test_the_loss_is_that_of_the_paper():
    policy, reference = torch.tensor([[-1.0, -4.0]]), torch.tensor([[-2.0, -3.0]])
    found = compare(
        policy, reference, torch.tensor([[2.0, 4.0]]), beta=0.5, length_normalised=False
    )
    assert float(found.margin) == pytest.approx(0.5 * (1 - -1))
    assert float(found.loss) == pytest.approx(-math.log(1 / (1 + math.exp(-1.0))))
    normalised = compare(
        policy, reference, torch.tensor([[2.0, 4.0]]), beta=0.5, length_normalised=True
    )
    assert float(normalised.margin) == pytest.approx(0.5 * (1 / 2 - -1 / 4))


def test_only_the_answer_in_question_counts_and_its_end_token_does(publish):
    source = sft.checkpoint(publish)
    chat = ChatFormat(ModelTokenizer(source))
    row = golden.pair("x", "red.", "blue, or so") | {
        "prompt": [
            {"role": "user", "content": "Which?"},
            {"role": "assistant", "content": "What?"},
            {"role": "user", "content": "Colour."},
        ]
    }
    (found,) = pairs_of.read(publish("preferences", pairs=[row]), chat, 96, Counter())["train"]
    said = [
        chat.tokenizer.backend.decode(
            [t for t in side[1] if t != IGNORED], skip_special_tokens=False
        )
        for side in (found.chosen, found.rejected)
    ]
    assert said == ["red.<|im_end|>", "blue, or so<|im_end|>"]


def test_padding_does_not_change_a_log_probability(publish):
    source = sft.checkpoint(publish)
    model = load_model(source)
    found = pairs_of.read(
        publish("preferences", pairs=golden.pairs(6, 0)),
        ChatFormat(ModelTokenizer(source)),
        96,
        Counter(),
    )
    batches = PairBatches(found["train"], 2, 0, pad=1)
    with torch.no_grad():
        together = answer_logprobs(model, batches.at(range(6)))
        alone = torch.cat([answer_logprobs(model, batches.at([n])) for n in range(6)])
    assert torch.allclose(together, alone, atol=1e-4)
    batches.remember_reference(model, 4, Report())
    assert torch.allclose(batches.at([3, 1])["reference"], alone[[3, 1]], atol=1e-4)


def test_the_loss_of_pairs_of_a_mixture_of_experts_is_the_sum_of_the_loss_of_each(publish):
    source = sft.checkpoint(
        publish,
        architecture="qwen3_moe",
        moe={"experts": 4, "experts_per_token": 2, "expert_width": 16},
    )
    pairs = [
        *golden.pairs(3, 0),
        golden.pair("Which?", "red.", "blue, or not, or green, or white, or red"),
    ]
    found = pairs_of.read(
        publish("preferences", pairs=pairs), ChatFormat(ModelTokenizer(source)), 96, Counter()
    )
    model, batches, loss = (
        load_model(source),
        PairBatches(found["train"], 4, 0, pad=1),
        preference_loss(0.1, 0.2, False),
    )
    with torch.no_grad():
        whole, parts = (
            loss(model, batches.at(range(4))),
            [loss(model, batches.at([n])) for n in range(4)],
        )
    assert float(whole.total) == pytest.approx(sum(float(part.total) for part in parts), rel=1e-6)


def test_pairs_that_do_not_fit_are_dropped_and_counted_and_none_left_is_an_error(run, publish):
    long = golden.pair("very " * 200, "no.", "yes.")
    checkpoint = sft.checkpoint(publish)
    some = publish(
        "preferences", pairs=[long, golden.pair("a<|im_end|>?", "b.", "c."), *golden.pairs(4, 0)]
    )
    trained = run("dpo", golden.SETTINGS, checkpoint=checkpoint, preferences=some)
    rejected = trained.manifest.facts["rejected"]
    assert rejected == {"special_token_in_text": 1, "too_long": 1}
    with pytest.raises(InputError, match=r"0 of 2 pairs can be trained on: 1 too_long, 1 held out"):
        run(
            "dpo",
            golden.SETTINGS,
            checkpoint=checkpoint,
            preferences=publish("preferences", pairs=[long, *golden.pairs(1, 1)]),
        )
