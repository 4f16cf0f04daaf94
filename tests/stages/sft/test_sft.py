from __future__ import annotations

import json

import pytest
import torch

from data_contracts import InputError
from stages.lm.chat import ChatFormat
from stages.lm.checkpoint import load_model
from stages.lm.generate import generate
from stages.lm.loss import IGNORED
from stages.sft import examples
from stages.sft.packing import Example, PackedChats, best_fit
from stages.sft.stage import answer_loss
from tests.golden import sft as golden

LEARNT = {
    "training": {"duration": 60, "duration_in": "steps", "batch_rows": 4, "learning_rate": 0.01, "matrix_learning_rate": 0.02},
    "max_new_tokens": 8,
    "compute": {"threads": 1, "precision": "float32"},
}


def test_a_model_learns_to_answer_and_to_stop(run, publish):
    chats = [golden.conversation(f"Which colour is thing number {n}?", "red.", "heldout" if n < 4 else "train") for n in range(24)]
    trained = run("sft", LEARNT, checkpoint=golden.checkpoint(publish), conversations=publish("conversations", conversations=chats))
    facts = trained.manifest.facts
    assert facts["figures"]["stops"] == 1.0
    assert facts["figures"]["heldout_loss"] < 0.1
    assert facts["samples"][0]["answer"] == facts["samples"][0]["reference"] == "red."
    chat = ChatFormat(trained)
    prompt = chat.prompts([[{"role": "user", "content": "Which colour is thing number 77?"}]])
    assert chat.text(generate(load_model(trained), prompt, stop=chat.stop_ids)[0]) == "red."
    assert json.loads((trained.path / "generation_config.json").read_text())["eos_token_id"] == chat.stop_ids


def test_packed_conversations_do_not_see_each_other(publish):
    model = load_model(golden.checkpoint(publish))
    chat = ChatFormat(golden.checkpoint(publish))
    texts = [golden.conversation("Which colour?", "red."), golden.conversation("What number?", "seven, eight.")]
    rows = [examples.fitted("n", t["messages"], chat.encode([t["messages"]])[0], chat, 96)[0] for t in texts]
    together = PackedChats(rows, 96, 1, 0, pad=1)
    assert together.rows_per_epoch == 1
    alone = [PackedChats([row], 96, 1, 0, pad=1) for row in rows]
    loss = answer_loss(0.0)
    with torch.no_grad():
        whole = float(loss(model, together.rows(0, 0, 1)).total)
        parts = sum(float(loss(model, one.rows(0, 0, 1)).total) for one in alone)
    assert whole == pytest.approx(parts, rel=1e-5)


def test_every_row_is_visited_once_an_epoch_and_in_another_order_the_next():
    rows = [Example(str(n), [n] * 5, [n] * 5) for n in range(10)]
    packed = PackedChats(rows, 5, 2, seed=0, pad=99)
    epochs = [[int(i) for step in range(5) for i in packed.rows(5 * epoch + step, 0, 2)["ids"][:, 0]] for epoch in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]


def test_padding_and_questions_have_no_label():
    packed = PackedChats([Example("a", [5, 6, 7], [IGNORED, 8, 9])], 6, 1, 0, pad=1)
    row = packed.at(slice(0, 1))
    assert row["ids"].tolist() == [[5, 6, 7, 1, 1, 1]]
    assert row["labels"].tolist() == [[IGNORED, 8, 9, IGNORED, IGNORED, IGNORED]]
    assert row["segments"].tolist() == [[1, 1, 1, 0, 0, 0]]


def test_best_fit_fills_rows_to_the_brim_where_it_can():
    lengths = [7, 3, 5, 5, 9, 1, 10]
    rows = best_fit(lengths, 10)
    assert sorted(item for row in rows for item in row) == list(range(7))
    assert [sum(lengths[item] for item in row) for row in rows] == [10, 10, 10, 10]


def test_a_conversation_that_does_not_fit_loses_its_last_exchanges_or_is_dropped_and_counted(run, publish):
    long = "very " * 100
    turns = [
        {"role": "user", "content": "Which colour?"}, {"role": "assistant", "content": "red."},
        {"role": "user", "content": long}, {"role": "assistant", "content": "blue."},
    ]  # fmt: skip
    chats = [golden.conversation(long, "green."), golden.chat(turns), golden.conversation("a<|im_end|>", "b."), *golden.colours(8, 2)]
    trained = run(
        "sft", golden.SETTINGS, checkpoint=golden.checkpoint(publish), conversations=publish("conversations", conversations=chats)
    )
    facts = trained.manifest.facts
    assert facts["rejected"] == {"special_token_in_text": 1, "too_long": 1}
    assert (facts["figures"]["shortened"], facts["figures"]["conversations"]) == (1, 7)


def test_kinds_can_be_repeated_and_left_out(publish):
    source = golden.checkpoint(publish)
    chats = publish(
        "conversations", conversations=[golden.conversation("a?", "b.", kind=kind) for kind in ("identity",)] + golden.colours(3, 0)
    )
    found = examples.read(chats, ChatFormat(source), 96, {"identity": 5, "user": 0})
    assert len(found.train) == 5


def test_nothing_to_train_on_is_an_error_that_says_why(run, publish):
    chats = [golden.conversation("very " * 200, "no."), golden.conversation("a?", "b.", split="heldout")]
    with pytest.raises(InputError, match=r"0 of 2 conversations can be trained on: 1 too_long, 1 are held out .*96 tokens"):
        run("sft", golden.SETTINGS, checkpoint=golden.checkpoint(publish), conversations=publish("conversations", conversations=chats))


def test_without_held_out_conversations_it_trains_all_the_same(run, publish):
    chats = publish("conversations", conversations=golden.colours(6, 0))
    figures = run("sft", golden.SETTINGS, checkpoint=golden.checkpoint(publish), conversations=chats).manifest.facts["figures"]
    assert (figures["heldout_loss"], figures["stops"]) == (None, None)
