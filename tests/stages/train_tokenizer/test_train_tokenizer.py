"""The published tokenizer in the hands of its users: transformers, llama.cpp, the report."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer

from data_contracts import ContractError, InputError, Store
from stages.digests import seed_for
from stages.train_tokenizer import bpe, round_trip, sample, special
from tests.checkpoints import tiny_checkpoint
from tests.conftest import publisher, runner
from tests.golden import made_up
from tests.golden import train_tokenizer as golden

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "\n What is it? "},
    {"role": "assistant", "content": "\nIt is a page 😀.\n"},
    {"role": "user", "content": "And this?"},
    {"role": "assistant", "content": "Größe"},
]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Any:
    store = Store(tmp_path_factory.mktemp("store"))
    return runner(store)("train_tokenizer", golden.SETTINGS, **golden.inputs(publisher(store)))


@pytest.fixture(scope="module")
def loaded(artifact: Any) -> Any:
    """The tokenizer as transformers loads it."""
    return AutoTokenizer.from_pretrained(artifact.path)


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    pages = [made_up.page(number) for number in range(20)]
    tokenizer = bpe.train(pages, 512, special.special_tokens(4), 2, 32)
    tokenizer.encode_special_tokens = True
    return tokenizer


def test_transformers_loads_the_folder_and_adds_no_token(loaded: Any) -> None:
    assert loaded.eos_token == "<|endoftext|>"
    assert loaded.bos_token == "<|endoftext|>"
    assert loaded.pad_token == "<|pad|>"
    assert len(loaded) == 512
    assert loaded.clean_up_tokenization_spaces is False
    text = "join(a, *p) isn't , spaced  . "
    ids = loaded(text).input_ids
    assert loaded.eos_token_id not in ids
    assert loaded.decode(ids) == text


def test_the_assistant_mask_covers_the_assistants_text_and_its_end_of_turn_and_nothing_else(
    loaded: Any,
) -> None:
    chat = loaded.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    learned = []
    for token, is_learned in zip(chat["input_ids"], chat["assistant_masks"], strict=True):
        if is_learned:
            learned.append(token)
    assert loaded.decode(learned) == "It is a page 😀.<|im_end|>Größe<|im_end|>"


def test_the_generation_prompt_is_what_precedes_an_answer(loaded: Any) -> None:
    prompt = loaded.apply_chat_template(CHAT[:2], tokenize=False, add_generation_prompt=True)
    answered = loaded.apply_chat_template(CHAT[:3], tokenize=False)
    assert prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWhat is it?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert answered == prompt + "It is a page 😀.<|im_end|>\n"


def test_the_chat_template_without_generation_marks_renders_the_same(loaded: Any) -> None:
    bare = loaded.chat_template
    for mark in ("{% generation %}", "{% endgeneration %}"):
        bare = bare.replace(mark, "")
    assert "generation %" not in bare
    without_marks = loaded.apply_chat_template(CHAT, tokenize=False, chat_template=bare)
    assert without_marks == loaded.apply_chat_template(CHAT, tokenize=False)


def test_special_tokens_have_the_first_ids_and_their_text_can_be_kept_text(loaded: Any) -> None:
    first = [loaded.convert_ids_to_tokens(number) for number in range(4)]
    assert first == ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
    assert loaded("a<|endoftext|>b").input_ids[1] == 0
    plain = loaded("a<|endoftext|>b", split_special_tokens=True).input_ids
    assert 0 not in plain
    assert loaded.decode(plain) == "a<|endoftext|>b"


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
    | st.text(" \n\r\t'aZ9é漢😀<|>", max_size=200)
)
def test_every_text_comes_back(small: Tokenizer, text: str) -> None:
    ids = small.encode(text, add_special_tokens=False).ids
    assert small.decode(ids, skip_special_tokens=False) == text
    assert not ids or min(ids) >= 8  # none of the eight special tokens


def test_every_byte_has_its_own_token(small: Tokenizer) -> None:
    covered = set()
    for text in round_trip.every_character():
        covered.update(text.encode())
    never_in_utf_8 = {0xC0, 0xC1, *range(0xF5, 0x100)}
    assert covered == set(range(256)) - never_in_utf_8
    assert len([token for token in small.get_vocab() if len(token) == 1]) == 256


def test_a_tokenizer_that_loses_text_is_refused() -> None:
    lossy = bpe.train(["abc abc abc"], 320, special.special_tokens(0), 2, 32)
    lossy.normalizer = normalizers.Lowercase()
    with pytest.raises(ContractError, match=r"gives back 'hello' for 'Hello' \(character 0 of 5\)"):
        round_trip.check_round_trip(lossy, ["fine", "Hello"], "character test")


def test_the_order_of_documents_does_not_change_a_byte() -> None:
    texts = [made_up.page(n) for n in range(20)]
    shuffled = texts[:]
    random.Random(3).shuffle(shuffled)
    first = bpe.train(texts, 600, special.special_tokens(2), 2, 32)
    second = bpe.train(shuffled, 600, special.special_tokens(2), 2, 32)
    assert first.to_str() == second.to_str()


def test_no_token_is_longer_than_the_setting() -> None:
    texts = ["-" * 500 + "\n" + "abcdefghij" * 30] * 5

    def longest(limit: int) -> int:
        tokenizer = bpe.train(texts, 400, special.special_tokens(0), 2, limit)
        learned = [token for token in tokenizer.get_vocab() if not token.startswith("<|")]
        return max(map(len, learned))

    assert longest(64) > 8
    assert longest(8) <= 8


def test_documents_beyond_sample_bytes_are_drawn_by_hash_and_not_by_position(publish: Any) -> None:
    rows = made_up.documents(0, 30)
    forwards = publish("training_documents", documents=rows, rejects=[])
    backwards = publish("training_documents", documents=rows[::-1], rejects=[])
    drawn = sample.draw(forwards, 0, 10_000, 4_000)
    assert drawn == sample.draw(backwards, 0, 10_000, 4_000)
    assert 10_000 <= drawn.learn_bytes < 10_000 + max(len(row["text"]) for row in rows)
    assert drawn.measure < drawn.learn < {row["id"] for row in rows}
    assert drawn.learn != sample.draw(forwards, 1, 10_000, 4_000).learn


def length_row(number: int) -> dict[str, str]:
    """A document of 0 to 96 bytes."""
    return {
        "id": f"{number:032x}",
        "source": f"s{number % 3}",
        "language": "en",
        "text": "x" * (number % 97),
    }


def lengths_of_pages(count: int) -> Any:
    """An artifact of `count` short documents, in batches of 100."""

    def batches(*_: object) -> Iterator[pa.RecordBatch]:
        for start in range(0, count, 100):
            rows = [length_row(number) for number in range(start, start + 100)]
            yield pa.RecordBatch.from_pylist(rows)

    return SimpleNamespace(batches=batches)


@pytest.mark.parametrize("sample_bytes", [1, 1_000, 30_000, 1_000_000])
def test_the_sample_is_the_start_of_all_documents_in_hash_order(sample_bytes: int) -> None:
    documents = lengths_of_pages(1_000)
    expected: set[str] = set()
    expected_bytes = 0
    rows = [row for batch in documents.batches() for row in batch.to_pylist()]
    for row in sorted(rows, key=lambda row: seed_for(7, "tokenizer sample", row["id"])):
        if expected_bytes < sample_bytes:
            expected.add(row["id"])
            expected_bytes += len(row["text"])
    drawn = sample.draw(documents, 7, sample_bytes, 500)
    assert drawn.learn == expected
    assert drawn.learn_bytes == expected_bytes


def test_drawing_keeps_the_sample_in_memory_and_not_the_corpus() -> None:
    tracemalloc.start()
    sample.draw(lengths_of_pages(3_000), 0, 2_000, 500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000  # 3,000 documents would take 880,000


def test_the_report_has_bytes_per_token_by_source_and_language(publish: Any, run: Any) -> None:
    text = "Слова другого языка на этой странице. " * 30
    russian = made_up.documents(100, 10, language="ru", source="other", text=text)
    documents = made_up.documents(0, 30) + russian
    training_documents = publish("training_documents", documents=documents, rejects=[])
    made = run("train_tokenizer", {"vocabulary_size": 600}, training_documents=training_documents)
    report = json.loads(made.file("report").read_text("utf-8"))
    tokenizer = Tokenizer.from_file(str(made.file("tokenizer")))
    assert report["by_language"]["ru"] == report["by_source"]["other"]
    in_russian = len(text.encode()) / len(tokenizer.encode(text).ids)
    assert report["by_language"]["ru"]["bytes_per_token"] == pytest.approx(in_russian, abs=1e-3)
    text_bytes = sum(len(row["text"].encode()) for row in documents)
    ids = [token for row in documents for token in tokenizer.encode(row["text"]).ids]
    assert report["bytes_per_token"] == pytest.approx(text_bytes / len(ids), abs=1e-3)
    assert report["round_trip"]["failures"] == 0
    assert report["round_trip"]["documents"] == 40
    assert report["unused_tokens"] == 600 - 16 - len(set(ids))


def test_a_small_text_gives_a_smaller_vocabulary_and_says_so(publish: Any, run: Any) -> None:
    documents = made_up.documents(0, 1, text="one two one two")
    training_documents = publish("training_documents", documents=documents, rejects=[])
    made = run("train_tokenizer", {}, training_documents=training_documents)
    assert made.manifest.facts["figures"]["vocabulary_size"] < 300
    assert "of the 4096 asked for" in made.manifest.facts["notes"][0]


def test_no_documents_is_an_error_that_counts_the_rejects(publish: Any, run: Any) -> None:
    rejects = made_up.documents(0, 3, reason="contaminated", item="0" * 32, ngram="a b c", hits=1)
    training_documents = publish("training_documents", documents=[], rejects=rejects)
    with pytest.raises(InputError, match="0 documents to learn from; decontaminate rejected 3"):
        run("train_tokenizer", {}, training_documents=training_documents)


@pytest.mark.slow
def test_stock_llama_cpp_gives_the_same_ids_and_the_same_chat(
    artifact: Any, publish: Any, run: Any
) -> None:
    random_weights = tiny_checkpoint(publish, unused_rows=12)  # for 512 tokens
    files = {}
    for entry in random_weights.manifest.files:
        if not entry.path.startswith("metrics/"):
            files[entry.path] = (random_weights.path / entry.path).read_bytes()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        files[name] = (artifact.path / name).read_bytes()
    metrics = random_weights.read("metrics").to_pylist()
    checkpoint = publish("checkpoint", files=files, metrics=metrics)
    made = run(
        "export_gguf",
        {"quantizations": ["F16"], "positions": 4, "new_tokens": 4, "prompts": ["Hello"]},
        checkpoint=checkpoint,
    )
    (row,) = made.read("quantizations").to_pylist()
    assert row["token_mismatches"] == 0
    assert row["strings"] > 500
