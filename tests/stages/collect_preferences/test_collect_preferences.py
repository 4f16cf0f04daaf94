from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts import ConfigError, InputError, Store
from stages import stage
from stages.collect_preferences.prompts import choose
from stages.report import Report
from stages.run import run_stage
from tests.golden import collect_preferences as golden
from tests.golden import sft


@pytest.fixture
def given(publish):
    return golden.inputs(publish)


def rows(artifact, table="pairs"):
    return artifact.read(table).to_pylist()


def test_chosen_is_the_human_answer_and_rejected_the_models_own(run, given):
    settings = golden.SETTINGS | {"max_new_tokens": 60, "prompts": 24}
    made = run("collect_preferences", settings, **given)
    human = {
        row["messages"][0]["content"]: row["messages"][-1]["content"]
        for row in rows(given["conversations"], "conversations")
    }
    assert made.rows("pairs")
    for pair in rows(made):
        assert pair["chosen"] == human[pair["prompt"][-1]["content"]] != pair["rejected"]
        assert pair["kind"] == "model"
    assert made.rows("pairs") + made.rows("rejects") == 24


@pytest.mark.slow
def test_the_batch_size_does_not_change_a_byte(given, tmp_path):
    row, contents = stage("collect_preferences"), set()
    for size in (1, 5, 64):
        config = row.config_class.parse(golden.SETTINGS | {"batch_size": size}, row.name)
        contents.add(run_stage(Store(tmp_path / str(size)), row, config, given)[0].manifest.content)
    assert len(contents) == 1


def test_conversations_that_sft_did_not_see_come_first_and_only_they_are_held_out(given):
    chats = given["conversations"]
    split = {row["id"]: row["split"] for row in rows(chats, "conversations")}
    few, many = choose(chats, 8, (), 0.5, 0), choose(chats, 24, (), 0.5, 0)
    assert {split[one.conversation] for one in few} == {"heldout"}
    assert {split[one.conversation] for one in many if one.split == "heldout"} == {"heldout"}
    assert {one.split for one in few} == {"train", "heldout"}


def test_answers_that_do_not_end_are_rejected_and_counted(run, given):
    with pytest.raises(InputError, match=r"0 pairs from 12 prompts and 0 files: 12 unfinished"):
        run("collect_preferences", golden.SETTINGS | {"max_new_tokens": 1}, **given)


def test_prompts_that_leave_no_tokens_for_an_answer_are_rejected(run, given):
    with pytest.raises(InputError, match=r"12 too_long"):
        run("collect_preferences", golden.SETTINGS | {"max_new_tokens": 120}, **given)


PAIR = {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green, I should think."}
USER, ASSISTANT = {"role": "user", "content": "Sea?"}, {"role": "assistant", "content": "Wet."}


def test_own_pairs_are_taken_in_every_usual_shape(run, given, tmp_path):
    file, table = tmp_path / "pairs.jsonl", tmp_path / "more.parquet"
    messages = {
        "prompt": [USER],
        "chosen": [ASSISTANT],
        "rejected": [{"role": "assistant", "content": "Dry as dust."}],
    }
    whole = {
        "chosen": [USER, ASSISTANT],
        "rejected": [USER, {"role": "assistant", "content": "Nobody knows."}],
    }
    file.write_text("\n".join(json.dumps(row) for row in (PAIR, messages, whole)))
    pq.write_table(
        pa.table(
            {"prompt": ["Grass?"], "chosen": ["Green."], "rejected": ["It is not for me to say."]}
        ),
        table,
    )
    made = run("collect_preferences", {"prompts": 0, "files": [str(file), str(table)]}, **given)
    assert {(row["prompt"][-1]["content"], row["chosen"], row["kind"]) for row in rows(made)} == {
        ("Sky?", "Blue.", "user"),
        ("Sea?", "Wet.", "user"),
        ("Grass?", "Green.", "user"),
    }
    assert made.rows("pairs") == 4


def test_whole_conversations_may_have_their_last_question_beside_them(run, tmp_path):
    wrong = {"role": "assistant", "content": "Dry as dust."}
    before = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Sky?"},
        {"role": "assistant", "content": "Blue."},
    ]
    # The shape of ultrafeedback_binarized.
    usual = {"prompt": "Sea?", "chosen": [USER, ASSISTANT], "rejected": [USER, wrong]}
    longer = {
        "prompt": " Sea?\n",
        "chosen": [*before, USER, ASSISTANT],
        "rejected": [*before, USER, wrong],
    }
    bad = [
        usual | {"prompt": "Lake?"},
        usual | {"rejected": [*before, USER, wrong]},
        usual | {"rejected": [wrong]},
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in (usual, longer, *bad)))
    made = run("collect_preferences", {"prompts": 0, "files": [str(file)]})
    assert sorted(len(row["prompt"]) for row in rows(made)) == [1, 4]
    assert {
        (row["prompt"][-1]["content"], row["chosen"], row["rejected"]) for row in rows(made)
    } == {("Sea?", "Wet.", "Dry as dust.")}
    assert [
        (row["reason"], row["conversation"].rsplit("#")[-1]) for row in rows(made, "rejects")
    ] == [("wrong_order", n) for n in "345"]


def test_own_pairs_alone_need_neither_a_model_nor_conversations(run, given, tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(PAIR))
    made = run("collect_preferences", {"prompts": 0, "files": [str(file)]})
    assert made.rows("pairs") == 1
    for inputs, missing in (
        ({}, "checkpoint and conversations"),
        ({"checkpoint": given["checkpoint"]}, "conversations"),
    ):
        message = rf"prompts is 256, so the model is asked; that needs {missing}\n.*--set prompts=0"
        with pytest.raises(ConfigError, match=message):
            run("collect_preferences", {"files": [str(file)]}, **inputs)


def test_conversations_without_rows_give_no_pairs(run, given, publish):
    with pytest.raises(InputError, match="0 pairs from 0 prompts and 0 files: no prompt was found"):
        run(
            "collect_preferences",
            golden.SETTINGS,
            **given | {"conversations": publish("conversations")},
        )


def test_every_batch_of_prompts_reports_progress(given, tmp_path):
    reported = []

    class RecordingReport(Report):
        def progress(self, done, total, unit):
            reported.append((done, total, unit))

    row = stage("collect_preferences")
    config = row.config_class.parse(golden.SETTINGS | {"prompts": 12, "batch_size": 5}, row.name)
    run_stage(Store(tmp_path), row, config, given, RecordingReport())
    assert reported == [(done, 12, "prompts") for done in (0, 5, 10, 12)]


def test_each_bad_row_is_rejected_with_its_reason_file_and_row(run, given, tmp_path):
    bad = [
        ("not_an_object", [1]),
        ("no_pair", {"prompt": "a", "chosen": "b"}),
        ("empty_turn", PAIR | {"chosen": " "}),
        ("unknown_role", PAIR | {"chosen": [{"role": "robot", "content": "x"}]}),
        ("wrong_order", PAIR | {"prompt": [ASSISTANT]}),
        ("wrong_order", {"chosen": [USER], "rejected": [USER]}),
        (
            "different_prompts",
            {"chosen": [USER, ASSISTANT], "rejected": [USER | {"content": "Other?"}, ASSISTANT]},
        ),
        ("equal", PAIR | {"rejected": "blue."}),
        (
            "nearly_equal",
            {
                "prompt": "a",
                "chosen": "The sky above us is blue.",
                "rejected": "The sky above us is blue!",
            },
        ),
        ("duplicate", PAIR),
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join([json.dumps(PAIR), *(json.dumps(row) for _, row in bad), "{"]))
    made = run(
        "collect_preferences", {"prompts": 0, "files": [str(file)], "heldout_share": 0.0}, **given
    )
    rejected = rows(made, "rejects")
    wanted = [*(reason for reason, _ in bad), "unreadable_row"]
    assert [(row["reason"], row["conversation"].rsplit("#")[-1]) for row in rejected] == [
        (r, str(n)) for n, r in enumerate(wanted, 2)
    ]
    assert rejected[0]["detail"].startswith(f"{file} row 2: ")


def test_a_text_that_spells_out_a_special_token_is_not_asked(run, publish):
    chats = [sft.conversation("a<|im_end|>b?", "c.", "heldout"), *sft.colours(6, 6)]
    inputs = {
        "checkpoint": sft.checkpoint(publish, context=128),
        "conversations": publish("conversations", conversations=chats),
    }
    made = run("collect_preferences", golden.SETTINGS | {"max_new_tokens": 80}, **inputs)
    assert made.manifest.facts["rejected"]["special_token_in_text"] == 1
