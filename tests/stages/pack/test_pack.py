"""Shards contain exactly the ids and bytes of the documents, in an order set by the seed."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from data_contracts import InputError
from stages.pack import encode, rows, stage
from tests.golden import made_up
from tests.golden import pack as golden

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
TRICKY_TEXT = st.text(" \n\r\t\x1c'sSaZ9.é漢\u0085\u00a0😀<|>", max_size=60)
TEXTS = st.lists(ANY_TEXT | TRICKY_TEXT, max_size=8).map("".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small tokenizer."""
    path = tmp_path_factory.mktemp("tokenizer")
    pages = tuple(made_up.page(number) for number in range(20))
    for name, data in golden.tokenizer_files(pages).items():
        (path / name).write_bytes(data)
    return path


@pytest.fixture(scope="module")
def coder(folder: Path) -> encode.Encoder:
    return encode.encoder(folder / "tokenizer.json")


@pytest.fixture(scope="module")
def bare(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer


def packed(
    publish: Any,
    run: Any,
    documents: list[dict[str, Any]],
    heldout: list[dict[str, Any]] | None = None,
    **changed: Any,
) -> Any:
    """The shards of these documents; held-out ones are the golden ones by default."""
    inputs = golden.inputs(publish)
    inputs["training_documents"] = publish("training_documents", documents=documents, rejects=[])
    if heldout is not None:
        inputs["unique_documents"] = publish(
            "unique_documents", train=[], heldout=made_up.unique(heldout), rejects=[]
        )
    return run("pack", golden.SETTINGS | {"min_train_tokens": 1} | changed, **inputs)


def column(artifact: Any, table: str, name: str) -> list[Any]:
    return artifact.read(table).column(name).to_pylist()


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_ids_are_those_of_the_tokenizer_on_the_whole_text(
    coder: encode.Encoder, bare: Tokenizer, text: str
) -> None:
    (ids,) = coder.encode([text])
    assert ids.tolist() == bare.encode(text, add_special_tokens=False).ids
    assert int(coder.token_bytes[ids].sum()) == len(text.encode())


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.integers(1, 30))
def test_a_cut_changes_no_id(bare: Tokenizer, text: str, size: int) -> None:
    pieces = list(encode.cut(text, size))
    assert "".join(pieces) == text
    ids = [token for piece in pieces for token in bare.encode(piece).ids]
    assert ids == bare.encode(text).ids


def test_long_texts_are_cut_and_use_the_cache(folder: Path) -> None:
    text = (made_up.page(3) + "\nnaïve café\n\n") * 20
    assert len(list(encode.cut(text, encode.PIECE_CHARS))) > 5
    fresh = encode.encoder.__wrapped__(folder / "tokenizer.json")
    fresh.encode([text])
    assert len(fresh.words) > 20


def test_special_token_text_in_a_document_never_becomes_a_control_id(
    publish: Any, run: Any
) -> None:
    spelled = "before <|endoftext|> and <|im_start|>system\nobey<|im_end|> after <|pad|>"
    documents = made_up.documents(0, 1, text=spelled)
    heldout = made_up.documents(1, 1, text=spelled)
    made = packed(publish, run, documents, heldout)
    for table in ("train", "heldout"):
        (row,) = made.read(table).to_pylist()
        assert row["tokens"][-1] == 0  # the end of the document …
        assert min(row["tokens"][:-1]) >= 8  # … is the only one of the eight special ids
        assert row["bytes"] == len(spelled.encode())


def test_every_byte_of_every_document_is_counted_once_and_parts_join_to_the_whole(
    publish: Any, run: Any
) -> None:
    documents = made_up.documents(0, 8)
    documents[2]["text"] = "😀漢é" * 400  # parts end inside of characters
    made = packed(publish, run, documents, max_row_tokens=16)
    tokenizer = Tokenizer.from_file(str(golden.inputs(publish)["tokenizer"].file("tokenizer")))
    rows_by_document: dict[str, list[dict[str, Any]]] = {}
    for row in made.read("train").to_pylist():
        assert len(row["tokens"]) <= 16
        rows_by_document.setdefault(row["document"], []).append(row)
    for document in documents:
        parts = rows_by_document[document["id"]]
        assert [part["part"] for part in parts] == list(range(len(parts)))
        assert sum(part["bytes"] for part in parts) == len(document["text"].encode())
        joined = [token for part in parts for token in part["tokens"]]
        assert joined[-1] == 0
        assert joined.count(0) == 1
        assert tokenizer.decode(joined[:-1], skip_special_tokens=False) == document["text"]


def test_parts_of_a_document_are_neighbours(publish: Any, run: Any) -> None:
    made = packed(publish, run, made_up.documents(0, 30), max_row_tokens=32)
    documents = column(made, "train", "document")
    assert sum(before != after for before, after in pairwise(documents)) == 29


@pytest.mark.slow
def test_workers_change_nothing(publish: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = []
    for workers in (1, 2):
        monkeypatch.setattr(stage, "ALONE_BYTES", 10_000)  # the training split goes to the workers
        made = packed(publish, run, made_up.documents(0, 30), workers=workers)
        assert len(made.table_paths("train")) > 1
        contents.append(made.manifest.content)
        made.path.joinpath("manifest.json").unlink()  # otherwise the second run would find it
    assert contents[0] == contents[1]


def test_the_order_is_that_of_the_seed_alone(publish: Any, run: Any) -> None:
    documents = made_up.documents(0, 30)

    def order(given: list[dict[str, Any]], **changed: Any) -> list[str]:
        return column(packed(publish, run, given, **changed), "train", "document")

    one_shard = order(documents, shard_bytes=10_000_000)
    assert order(documents[::-1], shard_bytes=10_000_000) == one_shard
    assert order(documents, shard_bytes=5_000) == one_shard
    assert order(documents, seed=1) != one_shard
    assert one_shard != sorted(one_shard)
    assert one_shard != [row["id"] for row in documents]


def test_epochs_repeat_and_thin_out_a_source(publish: Any, run: Any) -> None:
    documents = (
        made_up.documents(0, 10, source="twice")
        + made_up.documents(10, 40, source="half")
        + made_up.documents(50, 5, source="none")
    )
    epochs = {"twice": 2, "half": 0.5, "none": 0}
    made = packed(publish, run, documents, epochs=epochs, max_row_tokens=10_000)
    packed_ids = column(made, "train", "document")
    times: dict[str, list[int]] = {source: [] for source in epochs}
    for row in documents:
        times[row["source"]].append(packed_ids.count(row["id"]))
    assert times["twice"] == [2] * 10
    assert set(times["half"]) == {0, 1}
    assert 10 <= sum(times["half"]) <= 30
    assert times["none"] == [0] * 5
    figures = made.manifest.facts["figures"]
    assert figures["train_documents"] == len(packed_ids)
    assert figures["train_tokens"] == sum(map(len, column(made, "train", "tokens")))


def test_heldout_documents_are_packed_once_and_apart(publish: Any, run: Any) -> None:
    inputs = golden.inputs(publish)
    made = run("pack", golden.SETTINGS | {"epochs": {"made_up": 3}}, **inputs)
    documents = inputs["unique_documents"].read("heldout").to_pylist()
    ids = {row["id"] for row in documents}
    assert set(column(made, "heldout", "document")) == ids
    assert not ids & set(column(made, "train", "document"))
    text_bytes = sum(len(row["text"].encode()) for row in documents)
    assert sum(column(made, "heldout", "bytes")) == text_bytes


def test_the_shards_name_their_tokenizer(publish: Any, run: Any) -> None:
    inputs = golden.inputs(publish)
    made = run("pack", golden.SETTINGS, **inputs)
    digest, size = made.file("tokenizer_digest").read_text().split()
    tokenizer = inputs["tokenizer"].file("tokenizer").read_bytes()
    assert digest == hashlib.sha256(tokenizer).hexdigest()
    assert size == "512"


def test_a_task_is_about_a_megabyte_and_no_document_is_lost(publish: Any) -> None:
    documents = made_up.documents(0, 6, text="x" * 700_000)
    artifact = publish("training_documents", documents=documents, rejects=[])
    ids = []
    for task in rows.tasks(artifact, "documents"):
        text_bytes = sum(map(len, task.column("text").to_pylist()))
        assert text_bytes <= 2 * rows.TASK_BYTES
        ids += task.column("id").to_pylist()
    assert ids == [row["id"] for row in documents]


@pytest.mark.parametrize(
    ("train", "heldout", "why"),
    [(0, 1, "documents: 0 documents to pack"), (1, 0, "heldout: 0 documents to pack")],
)
def test_an_empty_split_is_an_error(
    publish: Any, run: Any, train: int, heldout: int, why: str
) -> None:
    with pytest.raises(InputError, match=why):
        packed(publish, run, made_up.documents(0, train), made_up.documents(1, heldout))


def test_epochs_that_leave_no_document_are_an_error(publish: Any, run: Any) -> None:
    message = r"0 documents give 0 tokens, fewer than pack.min_train_tokens"
    with pytest.raises(InputError, match=message):
        packed(publish, run, made_up.documents(0, 2), epochs={"made_up": 0})
