"""Paragraphs that several documents share stay in one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from data_contracts import Artifact
from tests.golden import dedup as golden

Publish = Callable[..., Artifact]
Run = Callable[..., Artifact]

SETTINGS = {"workers": 1, "paragraph_chars": 20, "heldout_share": 0}
BLOCKS = [f"Paragraph {n} says something of its own about the number {n * 37}." for n in range(8)]


def _text(*numbers: int) -> str:
    return "\n\n".join(["Title", *(BLOCKS[n] for n in numbers)])


def _clean(publish: Publish, texts: dict[str, str]) -> Artifact:
    documents = [golden.row(name, text) for name, text in texts.items()]
    return publish("clean_documents", documents=documents, rejects=[])


def _kept_texts(artifact: Artifact, table: str) -> list[str]:
    return artifact.read(table, ["text"]).column("text").to_pylist()


def _paragraphs(texts: Iterable[str]) -> list[str]:
    return [paragraph for text in texts for paragraph in text.split("\n\n")]


def test_a_shared_paragraph_stays_in_one_document_only(publish: Publish, run: Run) -> None:
    texts = {"a": _text(0, 1, 2), "b": _text(3, 1, 4), "c": _text(5, 6, 1, 7)}
    made = run("dedup", SETTINGS, clean_documents=_clean(publish, texts))
    kept = _paragraphs(_kept_texts(made, "train"))
    assert sorted(kept) == sorted(["Title"] * 3 + BLOCKS)
    assert made.manifest.facts["figures"]["paragraphs_cut"] == 2


def test_case_and_white_space_do_not_distinguish_paragraphs(publish: Publish, run: Run) -> None:
    texts = {"a": _text(0, 1), "b": _text(2, 3) + "\n \n" + BLOCKS[1].upper().replace(" ", "\n  ")}
    made = run("dedup", SETTINGS, clean_documents=_clean(publish, texts))
    assert made.manifest.facts["figures"]["paragraphs_cut"] == 1


def test_heldout_documents_keep_only_what_no_training_document_says(
    publish: Publish, run: Run
) -> None:
    texts = {}
    for n in range(8):
        for m in range(8):
            texts[f"{n} {m}"] = _text(n, m) + f"\n\nOnly document {n} {m} has this line."
    settings = SETTINGS | {"heldout_share": 0.3}
    made = run("dedup", settings, clean_documents=_clean(publish, texts))
    train = set(_paragraphs(_kept_texts(made, "train")))
    heldout = set(_paragraphs(_kept_texts(made, "heldout")))
    assert made.rows("heldout") >= 5
    assert train & heldout == {"Title"}
    assert train | heldout >= set(BLOCKS)


def test_a_document_of_paragraphs_from_others_is_rejected_whole(publish: Publish, run: Run) -> None:
    texts = {f"{n}": _text(n, n + 1).removeprefix("Title\n\n") for n in range(7)}
    made = run("dedup", SETTINGS, clean_documents=_clean(publish, texts))
    rejects = made.read("rejects").to_pylist()
    assert len(rejects) >= 1
    assert {row["reason"] for row in rejects} == {"repeated"}
    assert {row["text"] for row in rejects} <= set(texts.values())
    assert sorted(_paragraphs(_kept_texts(made, "train"))) == sorted(BLOCKS)


def test_no_paragraph_is_removed_by_default(publish: Publish, run: Run) -> None:
    texts = {"a": _text(0, 1, 2), "b": _text(3, 1, 4)}
    settings = {"workers": 1, "heldout_share": 0}
    made = run("dedup", settings, clean_documents=_clean(publish, texts))
    assert sorted(_kept_texts(made, "train")) == sorted(texts.values())
