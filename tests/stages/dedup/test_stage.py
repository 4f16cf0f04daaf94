"""The stage as the flows run it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from data_contracts import Artifact, Draft, InputError
from stages.dedup import stage as dedup_stage
from stages.dedup import writing
from tests.golden import dedup as golden
from tests.stages.dedup.test_clusters import changed, essay, jaccard, ngrams, signer

Publish = Callable[..., Artifact]
Run = Callable[..., Artifact]


def _texts(count: int, seed: int = 0) -> dict[str, str]:
    """`count` originals; every third has a near copy, every tenth an exact one."""
    chance = random.Random(seed)
    texts = {f"original {n}": essay(chance) for n in range(count)}
    texts |= {
        f"near {n}": changed(texts[f"original {n}"], chance, 0.01) for n in range(0, count, 3)
    }
    return texts | {f"exact {n}": texts[f"original {n}"].title() for n in range(0, count, 10)}


def _clean(publish: Publish, texts: dict[str, str]) -> Artifact:
    return publish(
        "clean_documents", documents=[golden.row(*item) for item in texts.items()], rejects=[]
    )


def test_copies_are_rejected_and_point_at_what_is_kept(publish: Publish, run: Run) -> None:
    made = run("dedup", golden.SETTINGS, **golden.inputs(publish))
    rejects = {row["title"]: row for row in made.read("rejects").to_pylist()}
    kept = {
        row["id"]: row for table in ("train", "heldout") for row in made.read(table).to_pylist()
    }
    assert {row["reason"] for row in rejects.values()} == {"exact", "near"}
    assert len(rejects) == 2
    for row in rejects.values():
        assert kept[row["cluster"]]["cluster_size"] == row["cluster_size"] == 2
        assert row["similarity"] >= 0.8
    assert made.manifest.facts["rejected"] == {"exact": 1, "near": 1}


@pytest.mark.slow
def test_the_result_does_not_depend_on_order_shards_or_workers(
    publish: Publish, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = _texts(60)
    shuffled = dict(random.Random(1).sample(sorted(texts.items()), len(texts)))
    monkeypatch.setattr(dedup_stage, "BATCH_ROWS", 7)
    contents = {
        run(
            "dedup",
            {"workers": workers, "heldout_share": 0.2},
            clean_documents=_clean(publish, given),
        ).manifest.content
        for workers, given in ((1, texts), (2, shuffled), (1, dict(reversed(texts.items()))))
    }
    assert len(contents) == 1


def test_many_ranges_hold_what_one_holds(
    publish: Publish, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = _clean(publish, _texts(40))
    one = run("dedup", {"workers": 1}, clean_documents=clean)
    monkeypatch.setattr(writing, "RANGE_BYTES", 20_000)
    many = run("dedup", {"workers": 1, "heldout_max_documents": 1999}, clean_documents=clean)
    assert len(many.table_paths("train")) > 3
    for table in writing.TABLES:
        assert many.read(table).equals(one.read(table))


def test_small_batches_are_scattered_together(publish: Publish, tmp_path: Path) -> None:
    clean = _clean(publish, _texts(40))
    documents: Any = SimpleNamespace(
        batches=lambda table, columns, batch_size: clean.batches(table, columns, 1)
    )
    verdicts = pa.table({"table": ["train"] * clean.rows("documents")})
    out = Draft("unique_documents", tmp_path / "draft")
    assert list(writing.scatter(documents, verdicts, lambda texts, first: texts, 3, out)) == [
        clean.rows("documents")
    ]
    for number in range(3):
        with pa.ipc.open_stream(str(writing.scratch_path(out, number))) as stream:
            assert len(list(stream)) == 1


@pytest.mark.slow
def test_signatures_do_not_depend_on_the_hash_seed() -> None:
    code = "from stages.dedup.minhash import Signer; print(Signer(5, 64, 0).signature(Signer(5, 64, 0).shingles('a b c d e f g h')).tolist())"
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1


def test_no_document_in_train_is_a_near_copy_of_a_heldout_one(publish: Publish, run: Run) -> None:
    chance, texts = random.Random(8), {}
    for n in range(60):  # copies at every distance, above the threshold and below
        texts[f"original {n}"] = essay(chance, 200)
        for step in range(3):
            texts[f"{n} {step}"] = changed(texts[f"original {n}"], chance, 0.01 + 0.015 * step)
    made = run(
        "dedup", {"workers": 1, "heldout_share": 0.3}, clean_documents=_clean(publish, texts)
    )
    train, heldout = (
        [ngrams(text) for text in made.read(table, ["text"]).column("text").to_pylist()]
        for table in ("train", "heldout")
    )
    assert len(heldout) >= 20
    assert max(jaccard(a, b) for a in heldout for b in train) < 0.8


@pytest.mark.parametrize(
    ("settings", "least", "most"), [({"heldout_share": 0}, 0, 0), ({"heldout_share": 0.001}, 1, 1)]
)
def test_the_heldout_share_is_respected(
    publish: Publish, run: Run, settings: dict[str, Any], least: int, most: int
) -> None:
    made = run("dedup", {"workers": 1, **settings}, clean_documents=_clean(publish, _texts(50)))
    assert least <= made.rows("heldout") <= most


def test_pages_that_must_be_trained_on_and_what_is_like_them_are_never_held_out(
    publish: Publish, run: Run
) -> None:
    rows = [golden.row(*item) for item in _texts(40).items()]
    wanted = {row["url"] for row in rows if row["url"].endswith(("1", "2", "3"))}
    clean = publish("clean_documents", documents=rows, rejects=[])
    for seed in range(3):
        settings = {"workers": 1, "heldout_share": 0.5, "seed": seed}
        without = (
            run("dedup", settings, clean_documents=clean)
            .read("heldout", ["url"])
            .column("url")
            .to_pylist()
        )
        assert wanted & set(without)
        made = run(
            "dedup", settings | {"always_train": ["(?i)[12]$", "(?i)3$"]}, clean_documents=clean
        )
        heldout = made.read("heldout", ["url"]).column("url").to_pylist()
        assert heldout
        assert not wanted & set(heldout)


def test_the_heldout_cap_is_respected_and_another_seed_holds_out_others(
    publish: Publish, run: Run
) -> None:
    clean = _clean(publish, _texts(100))
    ids = []
    for seed in (0, 1):
        made = run(
            "dedup",
            {"workers": 1, "heldout_share": 0.5, "heldout_max_documents": 8, "seed": seed},
            clean_documents=clean,
        )
        assert made.rows("heldout") == 8
        ids.append(made.read("heldout", ["id"]).column("id").to_pylist())
    assert ids[0] != ids[1]


def test_one_document_stays_in_train(publish: Publish, run: Run) -> None:
    made = run(
        "dedup",
        {"workers": 1, "heldout_share": 0.5},
        clean_documents=_clean(publish, {"only": "A text."}),
    )
    assert made.manifest.rows == {"train": 1, "heldout": 0, "rejects": 0}


def test_nothing_to_compare_is_named(publish: Publish, run: Run) -> None:
    with pytest.raises(InputError, match="0 documents: clean was given none"):
        run("dedup", clean_documents=_clean(publish, {}))


def test_shingles_of_a_short_text_are_one() -> None:
    assert len(signer().shingles("only three words")) == 1
    assert len(signer().shingles("")) == 1


BLOCKS = [f"Paragraph {n} says something of its own about the number {n * 37}." for n in range(8)]


def _text(*numbers: int) -> str:
    return "\n\n".join(["Title", *(BLOCKS[n] for n in numbers)])


def test_a_shared_paragraph_stays_in_one_document_only(publish: Publish, run: Run) -> None:
    texts = {"a": _text(0, 1, 2), "b": _text(3, 1, 4), "c": _text(5, 6, 1, 7)}
    made = run(
        "dedup",
        {"workers": 1, "paragraph_chars": 20, "heldout_share": 0},
        clean_documents=_clean(publish, texts),
    )
    kept = made.read("train", ["text"]).column("text").to_pylist()
    assert sorted(p for text in kept for p in text.split("\n\n")) == sorted(["Title"] * 3 + BLOCKS)
    assert made.manifest.facts["figures"]["paragraphs_cut"] == 2


def test_case_and_white_space_do_not_make_a_paragraph_another_one(
    publish: Publish, run: Run
) -> None:
    texts = {"a": _text(0, 1), "b": _text(2, 3) + "\n \n" + BLOCKS[1].upper().replace(" ", "\n  ")}
    made = run(
        "dedup",
        {"workers": 1, "paragraph_chars": 20, "heldout_share": 0},
        clean_documents=_clean(publish, texts),
    )
    assert made.manifest.facts["figures"]["paragraphs_cut"] == 1


def test_heldout_documents_keep_only_what_no_training_document_says(
    publish: Publish, run: Run
) -> None:
    texts = {
        f"{n} {m}": _text(n, m) + f"\n\nOnly document {n} {m} has this line."
        for n in range(8)
        for m in range(8)
    }
    made = run(
        "dedup",
        {"workers": 1, "paragraph_chars": 20, "heldout_share": 0.3},
        clean_documents=_clean(publish, texts),
    )
    train, heldout = (
        {p for t in made.read(table, ["text"]).column("text").to_pylist() for p in t.split("\n\n")}
        for table in ("train", "heldout")
    )
    assert made.rows("heldout") >= 5
    assert train & heldout == {"Title"}
    assert train | heldout >= set(BLOCKS)


def test_a_document_of_others_paragraphs_is_rejected_whole(publish: Publish, run: Run) -> None:
    texts = {f"{n}": _text(n, n + 1).removeprefix("Title\n\n") for n in range(7)}
    made = run(
        "dedup",
        {"workers": 1, "paragraph_chars": 20, "heldout_share": 0},
        clean_documents=_clean(publish, texts),
    )
    rejects = made.read("rejects").to_pylist()
    assert len(rejects) >= 1
    assert {row["reason"] for row in rejects} == {"repeated"}
    assert {row["text"] for row in rejects} <= set(
        _clean(publish, texts).read("documents").column("text").to_pylist()
    )
    kept = [
        p
        for text in made.read("train", ["text"]).column("text").to_pylist()
        for p in text.split("\n\n")
    ]
    assert sorted(kept) == sorted(BLOCKS)


def test_cutting_is_off_unless_asked_for(publish: Publish, run: Run) -> None:
    texts = {"a": _text(0, 1, 2), "b": _text(3, 1, 4)}
    made = run("dedup", {"workers": 1, "heldout_share": 0}, clean_documents=_clean(publish, texts))
    assert sorted(made.read("train", ["text"]).column("text").to_pylist()) == sorted(texts.values())
