"""The stage as the flows run it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from itertools import product
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
    for n in range(0, count, 3):
        texts[f"near {n}"] = changed(texts[f"original {n}"], chance, 0.01)
    for n in range(0, count, 10):
        texts[f"exact {n}"] = texts[f"original {n}"].title()
    return texts


def _clean(publish: Publish, texts: dict[str, str]) -> Artifact:
    documents = [golden.row(name, text) for name, text in texts.items()]
    return publish("clean_documents", documents=documents, rejects=[])


def _column(artifact: Artifact, table: str, name: str) -> list[str]:
    return artifact.read(table, [name]).column(name).to_pylist()


def test_copies_are_rejected_and_point_at_what_is_kept(publish: Publish, run: Run) -> None:
    made = run("dedup", golden.SETTINGS, **golden.inputs(publish))
    rejects = {row["title"]: row for row in made.read("rejects").to_pylist()}
    kept_rows = made.read("train").to_pylist() + made.read("heldout").to_pylist()
    kept = {row["id"]: row for row in kept_rows}
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
    backwards = dict(reversed(texts.items()))
    contents = set()
    for workers, given in ((1, texts), (2, shuffled), (1, backwards)):
        settings = {"workers": workers, "heldout_share": 0.2}
        made = run("dedup", settings, clean_documents=_clean(publish, given))
        contents.add(made.manifest.content)
    assert len(contents) == 1


def test_many_buckets_contain_what_one_contains(
    publish: Publish, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = _clean(publish, _texts(40))
    one = run("dedup", {"workers": 1}, clean_documents=clean)
    monkeypatch.setattr(dedup_stage, "BUCKET_BYTES", 20_000)
    many = run("dedup", {"workers": 1, "heldout_max_documents": 1999}, clean_documents=clean)
    assert len(many.table_paths("train")) > 3
    for table in writing.TABLES:
        assert many.read(table).equals(one.read(table))


def test_small_batches_are_scattered_together(publish: Publish, tmp_path: Path) -> None:
    clean = _clean(publish, _texts(40))
    total = clean.rows("documents")

    def one_by_one(table: str, columns: Any, batch_size: int) -> Any:
        return clean.batches(table, columns, batch_size=1)

    def unchanged(texts: pa.ChunkedArray, first: int) -> pa.ChunkedArray:
        return texts

    documents: Any = SimpleNamespace(batches=one_by_one)
    verdicts = pa.table({"table": ["train"] * total})
    out = Draft.in_folder("unique_documents", tmp_path / "draft")
    with writing.bucket_writer(out, 3) as writer:
        assert list(writing.scatter(documents, verdicts, unchanged, writer)) == [total]
    for bucket in writer.buckets:
        with pa.ipc.open_stream(str(bucket.path)) as stream:
            assert len(list(stream)) == 1


@pytest.mark.slow
def test_signatures_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "from stages.dedup.minhash import Signer\n"
        "signer = Signer(5, 64, 0)\n"
        "print(signer.signature(signer.shingles('a b c d e f g h')).tolist())"
    )
    outputs = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1


def test_no_document_in_train_is_a_near_copy_of_a_heldout_one(publish: Publish, run: Run) -> None:
    chance = random.Random(8)
    texts = {}
    for n in range(60):  # copies at every distance, above the threshold and below
        texts[f"original {n}"] = essay(chance, 200)
        for step in range(3):
            texts[f"{n} {step}"] = changed(texts[f"original {n}"], chance, 0.01 + 0.015 * step)
    clean = _clean(publish, texts)
    made = run("dedup", {"workers": 1, "heldout_share": 0.3}, clean_documents=clean)
    train = [ngrams(text) for text in _column(made, "train", "text")]
    heldout = [ngrams(text) for text in _column(made, "heldout", "text")]
    assert len(heldout) >= 20
    for one, other in product(heldout, train):
        assert jaccard(one, other) < 0.8


@pytest.mark.parametrize(
    ("settings", "least", "most"), [({"heldout_share": 0}, 0, 0), ({"heldout_share": 0.001}, 1, 1)]
)
def test_the_heldout_share_is_respected(
    publish: Publish, run: Run, settings: dict[str, Any], least: int, most: int
) -> None:
    made = run("dedup", {"workers": 1, **settings}, clean_documents=_clean(publish, _texts(50)))
    assert least <= made.rows("heldout") <= most


def test_pages_that_must_be_trained_on_and_similar_ones_are_never_held_out(
    publish: Publish, run: Run
) -> None:
    clean = _clean(publish, _texts(40))
    must_train = {
        url for url in _column(clean, "documents", "url") if url.endswith(("1", "2", "3"))
    }
    for seed in range(3):
        settings = {"workers": 1, "heldout_share": 0.5, "seed": seed}
        without = run("dedup", settings, clean_documents=clean)
        assert must_train & set(_column(without, "heldout", "url"))
        settings["always_train"] = ["(?i)[12]$", "(?i)3$"]
        made = run("dedup", settings, clean_documents=clean)
        heldout = _column(made, "heldout", "url")
        assert heldout
        assert not must_train & set(heldout)


def test_the_heldout_cap_is_respected_and_another_seed_holds_out_others(
    publish: Publish, run: Run
) -> None:
    clean = _clean(publish, _texts(100))
    ids = []
    for seed in (0, 1):
        settings = {
            "workers": 1,
            "heldout_share": 0.5,
            "heldout_max_documents": 8,
            "seed": seed,
        }
        made = run("dedup", settings, clean_documents=clean)
        assert made.rows("heldout") == 8
        ids.append(_column(made, "heldout", "id"))
    assert ids[0] != ids[1]


def test_one_document_stays_in_train(publish: Publish, run: Run) -> None:
    clean = _clean(publish, {"only": "A text."})
    made = run("dedup", {"workers": 1, "heldout_share": 0.5}, clean_documents=clean)
    assert made.manifest.rows == {"train": 1, "heldout": 0, "rejects": 0}


def test_nothing_to_compare_is_an_error(publish: Publish, run: Run) -> None:
    with pytest.raises(InputError, match="0 documents: clean was given none"):
        run("dedup", clean_documents=_clean(publish, {}))


def test_a_short_text_is_one_shingle() -> None:
    assert len(signer().shingles("only three words")) == 1
    assert len(signer().shingles("")) == 1
