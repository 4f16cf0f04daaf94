from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from data_contracts import ConfigError, InputError
from stages.digests import digest
from stages.lm.chat import ChatFormat
from stages.lm.checkpoint import load_model
from stages.lm.generate import generate
from stages.lm.loss import IGNORED
from stages.lm.tokenizer import ModelTokenizer
from stages.sft import examples
from stages.sft.packing import Example, PackedChats, best_fit
from stages.sft.replay import WithReplay, windows
from stages.sft.stage import answer_loss, answers
from tests.golden import sft as golden

LEARNT = {
    "training": {
        "duration": 60,
        "duration_in": "steps",
        "batch_size": 4,
        "learning_rate": 0.01,
        "muon_learning_rate": 0.02,
    },
    "max_new_tokens": 8,
    "compute": {"threads": 1, "precision": "float32"},
}


def example(name, read, wanted):
    return Example(name, np.array(read, np.int32), np.array(wanted, np.int32))


@pytest.mark.slow
def test_a_model_learns_to_answer_and_to_stop(run, publish):
    chats = [
        golden.conversation(
            f"Which colour is thing number {n}?", "red.", "heldout" if n < 4 else "train"
        )
        for n in range(24)
    ]
    trained = run(
        "sft",
        LEARNT,
        checkpoint=golden.checkpoint(publish),
        conversations=publish("conversations", conversations=chats),
    )
    facts = trained.manifest.facts
    assert facts["figures"]["stops"] == 1.0
    assert facts["figures"]["heldout_loss"] < 0.1
    assert facts["samples"][0]["answer"] == facts["samples"][0]["reference"] == "red."
    chat = ChatFormat(ModelTokenizer(trained))
    prompt = chat.prompts([[{"role": "user", "content": "Which colour is thing number 77?"}]])
    assert chat.text(generate(load_model(trained), prompt, stop=chat.stop_ids)[0]) == "red."
    assert (
        json.loads((trained.path / "generation_config.json").read_text())["eos_token_id"]
        == chat.stop_ids
    )


def test_packed_conversations_do_not_see_each_other(publish):
    model = load_model(golden.checkpoint(publish))
    chat = ChatFormat(ModelTokenizer(golden.checkpoint(publish)))
    texts = [
        golden.conversation("Which colour?", "red."),
        golden.conversation("What number?", "seven, eight."),
    ]
    rows = [
        examples.fitted("n", t["messages"], chat.encode([t["messages"]])[0], chat, 96)[0]
        for t in texts
    ]
    together = PackedChats(rows, 96, 1, 0, pad=1)
    assert together.rows_per_epoch == 1
    alone = [PackedChats([row], 96, 1, 0, pad=1) for row in rows]
    loss = answer_loss(0.0)
    with torch.no_grad():
        whole = float(loss(model, together.rows(0, 0, 1)).total)
        parts = sum(float(loss(model, one.rows(0, 0, 1)).total) for one in alone)
    assert whole == pytest.approx(parts, rel=1e-5)


def test_the_loss_of_a_mixture_of_experts_does_not_depend_on_padding(publish):
    checkpoint = golden.checkpoint(
        publish,
        architecture="qwen3_moe",
        moe={"experts": 4, "experts_per_token": 2, "expert_width": 16},
    )
    model, row = load_model(checkpoint), example("n", [5, 6, 7, 8], [IGNORED, 7, 8, 9])
    with torch.no_grad():
        found = [
            answer_loss(0.0)(model, PackedChats([row], width, 1, 0, pad=1).rows(0, 0, 1))
            for width in (4, 96)
        ]
    assert [float(loss.total) for loss in found] == pytest.approx(
        [float(found[0].total)] * 2, rel=1e-6
    )
    assert (
        found[0].total > found[0].figures["loss"] + 0.03 * 0.99
    )  # the load-balancing loss of three answer tokens is at least that


def test_every_row_is_visited_once_an_epoch_and_in_another_order_the_next():
    rows = [example(str(n), [n] * 5, [n] * 5) for n in range(10)]
    packed = PackedChats(rows, 5, 2, seed=0, pad=99)
    epochs = [
        [int(i) for step in range(5) for i in packed.rows(5 * epoch + step, 0, 2)["ids"][:, 0]]
        for epoch in (0, 1)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]


def test_padding_and_questions_have_no_label():
    packed = PackedChats([example("a", [5, 6, 7], [IGNORED, 8, 9])], 6, 1, 0, pad=1)
    row = packed.at(slice(0, 1))
    assert row["ids"].tolist() == [[5, 6, 7, 1, 1, 1]]
    assert row["labels"].tolist() == [[IGNORED, 8, 9, IGNORED, IGNORED, IGNORED]]
    assert row["segments"].tolist() == [[1, 1, 1, 0, 0, 0]]


def test_best_fit_fills_rows_to_the_brim_where_it_can():
    lengths = [7, 3, 5, 5, 9, 1, 10]
    rows = best_fit(lengths, 10)
    assert sorted(item for row in rows for item in row) == list(range(7))
    assert [sum(lengths[item] for item in row) for row in rows] == [10, 10, 10, 10]


def test_a_conversation_that_does_not_fit_loses_its_last_exchanges_or_is_dropped_and_counted(
    run, publish
):
    long = "very " * 100
    turns = [
        {"role": "user", "content": "Which colour?"},
        {"role": "assistant", "content": "red."},
        {"role": "user", "content": long},
        {"role": "assistant", "content": "blue."},
    ]
    chats = [
        golden.conversation(long, "green."),
        golden.chat(turns),
        golden.conversation("a<|im_end|>", "b."),
        *golden.colours(8, 2),
    ]
    trained = run(
        "sft",
        golden.SETTINGS,
        checkpoint=golden.checkpoint(publish),
        conversations=publish("conversations", conversations=chats),
    )
    facts = trained.manifest.facts
    assert facts["rejected"] == {"special_token_in_text": 1, "too_long": 1}
    assert (facts["figures"]["shortened"], facts["figures"]["conversations"]) == (1, 7)


def test_an_answer_that_ends_with_the_last_token_of_the_context_has_stopped(publish):
    checkpoint = golden.checkpoint(publish, tied_embeddings=False)
    chat, model = ChatFormat(ModelTokenizer(checkpoint)), load_model(checkpoint)
    asked = golden.conversation("Which colour is it?", "red.")["messages"]
    (prompt,) = chat.prompts([asked[:1]])
    model.config = model.config.model_copy(update={"context": len(prompt) + 2})
    (free,) = generate(model, [prompt])
    assert len(free) == 3
    assert free[2] not in free[:2]
    assert answers(model, chat, [asked], 96)[0] == 0.0
    chat.stop_ids = [free[2]]
    assert answers(model, chat, [asked], 96)[0] == 1.0


def test_kinds_can_be_repeated_and_left_out(publish):
    source = golden.checkpoint(publish)
    chats = publish(
        "conversations",
        conversations=[golden.conversation("a?", "b.", kind=kind) for kind in ("identity",)]
        + golden.colours(3, 0),
    )
    found = examples.read(chats, ChatFormat(ModelTokenizer(source)), 96, {"identity": 5, "user": 0})
    assert len(found.train) == 5


def test_nothing_to_train_on_is_an_error_that_says_why(run, publish):
    chats = [
        golden.conversation("very " * 200, "no."),
        golden.conversation("a?", "b.", split="heldout"),
    ]
    with pytest.raises(
        InputError,
        match=r"0 of 2 conversations can be trained on: 1 too_long, 1 are held out .*96 tokens",
    ):
        run(
            "sft",
            golden.SETTINGS,
            checkpoint=golden.checkpoint(publish),
            conversations=publish("conversations", conversations=chats),
        )


def test_without_held_out_conversations_it_trains_all_the_same(run, publish):
    chats = publish("conversations", conversations=golden.colours(6, 0))
    figures = run(
        "sft", golden.SETTINGS, checkpoint=golden.checkpoint(publish), conversations=chats
    ).manifest.facts["figures"]
    assert (figures["heldout_loss"], figures["stops"]) == (None, None)


def _shards(publish, checkpoint):
    words = golden.tokenizer()
    texts = [
        f"Page {n} says that number {n * 7} comes before number {n * 7 + 1}." for n in range(80)
    ]
    rows = [
        {
            "document": digest(text),
            "part": 0,
            "tokens": [*words.encode(text).ids, 0],
            "bytes": len(text.encode()),
        }
        for text in texts
    ]
    digest_of = hashlib.sha256((checkpoint.path / "tokenizer.json").read_bytes()).hexdigest()
    stamp = f"{digest_of} {words.get_vocab_size()}"
    return publish(
        "token_shards", train=rows, heldout=rows[:2], files={"tokenizer.sha256": stamp.encode()}
    )


def test_replayed_rows_are_pages_and_the_others_conversations_however_a_batch_is_cut(publish):
    checkpoint = golden.checkpoint(publish)
    examples = [example(f"c{n}", [2, 3, n % 50 + 5], [IGNORED, n % 50 + 5, 2]) for n in range(60)]
    chats = PackedChats(examples, 96, 6, seed=0, pad=1)
    with tempfile.TemporaryDirectory() as folder:
        pages = windows(0.25, 2, _shards(publish, checkpoint), checkpoint, Path(folder), 96, seed=0)
        mixed = WithReplay(chats, pages, 8)
        whole = mixed.rows(3, 0, 8)
        assert (whole["labels"][6:] >= 0).all()
        assert (whole["labels"][:6] < 0).any(dim=1).all()
        assert torch.equal(whole["ids"][6:], pages.rows(3, 0, 2)["ids"])
        for size in (1, 2, 4):
            parts = [mixed.rows(3, start, size) for start in range(0, 8, size)]
            for name, tensor in whole.items():
                assert torch.equal(torch.cat([part[name] for part in parts]), tensor)


def test_a_duration_in_tokens_counts_replayed_rows_as_full(publish):
    checkpoint = golden.checkpoint(publish)
    examples = [example(f"c{n}", [2] * 48, [5] * 48) for n in range(60)]
    with tempfile.TemporaryDirectory() as folder:
        pages = windows(0.25, 2, _shards(publish, checkpoint), checkpoint, Path(folder), 64, seed=0)
        chats = PackedChats(examples, 64, 6, seed=0, pad=1)
        assert chats.tokens_per_row == 48
        mixed = WithReplay(chats, pages, 8)
        read = [int((mixed.rows(step, 0, 8)["segments"] > 0).sum()) for step in range(3)]
    assert read == [8 * mixed.tokens_per_row] * 3 == [6 * 48 + 2 * 64] * 3


@pytest.mark.slow
def test_replay_keeps_what_was_known_of_the_pages(run, publish):
    inputs = golden.inputs(publish)
    shards = _shards(publish, inputs["checkpoint"])
    settings = golden.SETTINGS | {"training": golden.SETTINGS["training"] | {"batch_size": 8}}
    row = torch.tensor(shards.read("train", ["tokens"]).column("tokens")[0].as_py())
    losses = []
    for replay in (0, 0.5):
        made = load_model(run("sft", settings | {"replay": replay}, **inputs, token_shards=shards))
        with torch.no_grad():
            losses.append(
                float(torch.nn.functional.cross_entropy(made(row[None, :-1])[0].float(), row[1:]))
            )
    assert losses[1] < 0.8 * losses[0]


def test_replay_without_pages_is_an_error_that_names_them(run, publish):
    with pytest.raises(ConfigError, match=r"sft\.replay: (?s:.)*token_shards=NAME/token_shards"):
        run("sft", golden.SETTINGS | {"replay": 0.5}, **golden.inputs(publish))
