"""Clusters on signatures: recall, verification, chains, worst cases, and signatures equal to datasketch's."""

from __future__ import annotations

import random
import time

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash

from stages.dedup.clusters import find_clusters, similarity
from stages.dedup.config import DedupConfig
from stages.dedup.minhash import Signed, Signer
from stages.digests import digest, seed_for

CONFIG = DedupConfig()
BANDS, ROWS = CONFIG.bands_and_rows()
WORDS = [
    f"{a}{b}"
    for a in ("ka", "lo", "mi", "nu", "pe", "ra", "su", "ti")
    for b in ("dor", "fen", "gil", "hum", "jan", "kel")
]


def signer(ngram: int = 5, seed: int = 0) -> Signer:
    return Signer(ngram, CONFIG.permutations, seed)


def signed(texts: list[str], names: list[str] | None = None, ngram: int = 5) -> Signed:
    ids = [digest("test", name) for name in (names or list(map(str, range(len(texts)))))]
    return signer(ngram).sign(
        pa.record_batch({"id": pa.array(ids), "text": pa.array(texts, pa.large_string())})
    )


def essay(chance: random.Random, words: int = 300) -> str:
    return " ".join(chance.choices(WORDS, k=words))


def changed(text: str, chance: random.Random, share: float) -> str:
    """`text` with a share of its words replaced."""
    words = text.split()
    for at in chance.sample(range(len(words)), int(len(words) * share)):
        words[at] = "other"
    return " ".join(words)


def ngrams(text: str, n: int = 5) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def jaccard(a: set[tuple[str, ...]], b: set[tuple[str, ...]]) -> float:
    """The true similarity, by counting."""
    return len(a & b) / len(a | b)


def test_signatures_are_datasketchs_own() -> None:
    shingles = signer().shingles(essay(random.Random(1), 900))
    theirs = MinHash(
        num_perm=CONFIG.permutations,
        seed=seed_for(0, "dedup", "permutations") & 0xFFFF_FFFF,
        scheme="affine32",
        hashfunc=int,
    )
    theirs.update_batch(shingles)
    assert np.array_equal(signer().signature(shingles), theirs.hashvalues)


def test_estimates_are_close_to_the_true_similarity() -> None:
    chance = random.Random(2)
    texts = [essay(chance)]
    texts += [changed(texts[0], chance, share) for share in (0.01, 0.03, 0.06, 0.1)]
    estimated = similarity(signed(texts).signatures, np.zeros(4, np.int64), np.arange(1, 5))
    true = [jaccard(ngrams(texts[0]), ngrams(other)) for other in texts[1:]]
    assert np.abs(estimated - true).max() < 4 * np.sqrt(0.25 / CONFIG.permutations)


def test_planted_near_duplicates_are_found_and_strangers_are_not() -> None:
    chance = random.Random(3)
    originals = [essay(chance) for _ in range(300)]
    copies = [changed(text, chance, 0.01) for text in originals]
    assert min(map(jaccard, map(ngrams, originals), map(ngrams, copies))) > 0.85
    clusters = find_clusters(signed(originals + copies), 0.8, BANDS, ROWS)
    together = clusters.representative[:300] == clusters.representative[300:]
    assert together.mean() >= 0.99
    assert len(np.unique(clusters.representative)) >= 300


@pytest.mark.parametrize(("share", "together"), [(0.01, True), (0.08, False)])
def test_the_threshold_decides(share: float, together: bool) -> None:
    chance = random.Random(4)
    text = essay(chance, 800)
    clusters = find_clusters(signed([text, changed(text, chance, share)]), 0.8, BANDS, ROWS)
    assert (clusters.representative[0] == clusters.representative[1]) == together


def test_a_chain_is_one_cluster_though_its_ends_differ() -> None:
    chance = random.Random(5)
    a = essay(chance, 600)
    b = changed(a, chance, 0.018)
    c = changed(b, chance, 0.018)
    d = changed(c, chance, 0.018)
    sets = [ngrams(text) for text in (a, b, c, d)]
    assert min(map(jaccard, sets, sets[1:])) > 0.8 > jaccard(sets[0], sets[3])
    assert (
        len(np.unique(find_clusters(signed([a, b, c, d]), 0.78, BANDS, ROWS).representative)) == 1
    )


def test_exact_means_equal_but_for_case_and_white_space() -> None:
    clusters = find_clusters(
        signed(["One two  three", "one TWO\nthree", "one two four"]), 0.8, BANDS, ROWS
    )
    assert clusters.exact.sum() == 1
    assert len(np.unique(clusters.representative)) == 2


def test_the_longest_text_stands_for_a_cluster_then_the_smallest_id() -> None:
    text = essay(random.Random(6))
    names = ["a", "b", "c"]
    smaller = min(range(2), key=lambda n: digest("test", names[n]))
    assert set(find_clusters(signed([text, text], names[:2]), 0.8, BANDS, ROWS).representative) == {
        smaller
    }
    assert set(
        find_clusters(signed([text, text, text + " more"], names), 0.8, BANDS, ROWS).representative
    ) == {2}


def test_texts_without_words_are_not_all_one() -> None:
    assert (
        len(
            np.unique(find_clusters(signed(["===", "***", "..."]), 0.8, BANDS, ROWS).representative)
        )
        == 3
    )


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.95])
def test_derived_bands_find_999_of_1000_pairs_at_the_threshold(threshold: float) -> None:
    bands, rows = DedupConfig(threshold=threshold).bands_and_rows()
    assert 1 - (1 - threshold**rows) ** bands >= 0.999
    assert bands * rows <= CONFIG.permutations


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["identical", "nearly identical", "alike below the threshold"])
def test_twenty_thousand_like_documents_take_seconds(kind: str) -> None:
    count, chance = 20_000, np.random.default_rng(0)
    base = chance.integers(0, 2**32, CONFIG.permutations, np.uint32)
    signatures = np.tile(base, (count, 1))
    share = {"identical": 0.0, "nearly identical": 0.05, "alike below the threshold": 0.4}[kind]
    other = chance.random(signatures.shape) < share
    signatures[other] = chance.integers(0, 2**32, int(other.sum()), np.uint32)
    digests = (
        chance.integers(0, 2**63, (count, 2), np.uint64)
        if share
        else np.zeros((count, 2), np.uint64)
    )
    ids = np.frombuffer(chance.bytes(16 * count), "V16")
    begin = time.process_time()
    clusters = find_clusters(
        Signed(ids, digests, np.full(count, 100), signatures, 0), 0.8, BANDS, ROWS
    )
    assert time.process_time() - begin < 20
    kept = len(np.unique(clusters.representative))
    assert kept == 1 if share < 0.1 else kept > count * 0.9
