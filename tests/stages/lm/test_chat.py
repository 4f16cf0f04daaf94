from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from data_contracts import ArtifactError
from stages.lm.chat import ChatFormat
from stages.lm.loss import IGNORED
from stages.lm.tokenizer import ModelTokenizer
from tests.golden import sft as golden

TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Ünï 日本?\nassistant"},
    {"role": "assistant", "content": "Hello\n日本 "},
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": "y."},
]


@pytest.fixture
def source(publish):
    return golden.checkpoint(publish)


def test_exactly_the_assistants_text_and_its_end_tokens_are_labelled_in_every_turn(source):
    chat = ChatFormat(ModelTokenizer(source))
    _, wanted = chat.encode([TURNS])[0].shifted(IGNORED)
    assert (
        chat.tokenizer.backend.decode(
            [token for token in wanted if token != IGNORED], skip_special_tokens=False
        )
        == "Hello\n日本<|im_end|>y.<|im_end|>"
    )


def test_ids_and_marks_are_those_of_transformers(source):
    theirs = AutoTokenizer.from_pretrained(source.path)
    chat = ChatFormat(ModelTokenizer(source))
    for turns in (TURNS, TURNS[1:3]):
        made = theirs.apply_chat_template(
            turns, return_assistant_tokens_mask=True, return_dict=True
        )
        ours = chat.encode([turns])[0]
        assert (ours.ids, ours.answers) == (
            made["input_ids"],
            [bool(mark) for mark in made["assistant_masks"]],
        )
    assert (
        chat.prompts([TURNS[:-1]])[0]
        == theirs.apply_chat_template(TURNS[:-1], add_generation_prompt=True)["input_ids"]
    )


def test_a_prompt_is_the_beginning_of_the_answered_conversation(source):
    chat = ChatFormat(ModelTokenizer(source))
    (prompt,), (whole,) = chat.prompts([TURNS[:-1]]), chat.encode([TURNS])
    assert whole.ids[: len(prompt)] == prompt
    assert whole.answers[len(prompt)]


def test_an_answer_ends_at_the_end_of_turn_or_of_text(source):
    assert ChatFormat(ModelTokenizer(source)).stop_ids == [
        golden.SPECIAL.index("<|endoftext|>"),
        golden.SPECIAL.index("<|im_end|>"),
    ]


def test_a_special_token_spelt_out_in_a_text_is_found(source):
    chat = ChatFormat(ModelTokenizer(source))
    assert chat.special_token_in([{"role": "user", "content": "a<|im_end|>b"}]) == "<|im_end|>"
    assert chat.special_token_in(TURNS) is None


def test_a_template_without_marks_is_refused(source, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((source.path / name).read_bytes())
    Path(tmp_path / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ message.content }}{% endfor %}"
    )
    with pytest.raises(ArtifactError, match="does not mark the assistant's text"):
        ChatFormat(ModelTokenizer(tmp_path))
