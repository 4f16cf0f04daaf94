"""What was made from what, and what follows from it."""

from __future__ import annotations

import shutil

import pytest

from data_contracts import ArtifactError
from flows import lineage
from flows.scheduled_eval import inputs_for


@pytest.fixture
def model(recorded):
    """A dpo_checkpoint with what it was made from."""
    unique = recorded("unique_documents", "dedup")
    exam = recorded("eval_items", "collect_evals", unique_documents=unique)
    corpus = recorded(
        "training_documents", "decontaminate", unique_documents=unique, eval_items=exam
    )
    shards = recorded("token_shards", "pack", training_documents=corpus)
    base = recorded("checkpoint", "pretrain", token_shards=shards)
    chats = recorded("conversations", "collect_chats", training_documents=corpus)
    return recorded(
        "checkpoint",
        "dpo",
        checkpoint=recorded("checkpoint", "sft", checkpoint=base, conversations=chats),
    )


def upstream(store, model, stage):
    (found,) = [one for one in lineage.present(store, model) if one.manifest.stage == stage]
    return found


def test_a_missing_input_is_an_error_upstream_and_absent_from_what_is_present(store, model):
    whole = lineage.upstream(store, model)
    unique = upstream(store, model, "dedup")
    shutil.rmtree(unique.path)
    with pytest.raises(ArtifactError, match=f"{unique}: training_documents/.* was made from it"):
        lineage.upstream(store, model)
    assert [str(one) for one in lineage.present(store, model)] == [
        str(one) for one in whole if one.id != unique.id
    ]


def test_an_old_model_is_scored_on_its_own_exam_whatever_its_name_holds_now(store, model, recorded):
    store.point("demo", "dpo_checkpoint", model, made_by="test")
    for output, stage in (("eval_items", "collect_evals"), ("base_checkpoint", "pretrain")):
        store.point(
            "demo",
            output,
            recorded(output.removeprefix("base_"), stage),
            made_by="a newer run, stopped before dpo",
        )
    inputs = inputs_for(store, model)
    assert inputs == {
        "eval_items": str(upstream(store, model, "collect_evals")),
        "base_checkpoint": str(upstream(store, model, "pretrain")),
    }


def test_an_exam_that_cannot_be_told_is_an_error_and_one_that_never_was_is_left_to_the_name(
    store, model, recorded
):
    corpus = upstream(store, model, "decontaminate")
    shutil.rmtree(corpus.path)
    with pytest.raises(ArtifactError, match=f"{corpus}: .* was made from it"):
        inputs_for(store, model)
    assert inputs_for(store, recorded("checkpoint", "dpo")) == {}
