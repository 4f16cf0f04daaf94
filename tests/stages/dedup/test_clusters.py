"""Clusters: recall, verification, chains, worst cases, and signatures equal to datasketch's."""

from __future__ import annotations

import random
import time
from itertools import pairwise, product

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash

from stages.dedup.clusters import Clusters, find_clusters, similarity
from stages.dedup.config import DedupConfig
from stages.dedup.minhash import Signed, Signer
from stages.digests import digest, seed_for

CONFIG = DedupConfig()
BANDS, ROWS = CONFIG.bands_and_rows()
_FIRST = ("ka", "lo", "mi", "nu", "pe", "ra", "su", "ti")
_SECOND = ("dor", "fen", "gil", "hum", "jan", "kel")
WORDS = ["".join(syllables) for syllables in product(_FIRST, _SECOND)]


def signer(ngram: int = 5, seed: int = 0) -> Signer:
    return Signer(ngram, CONFIG.permutations, seed)


def signed(texts: list[str], names: list[str] | None = None, ngram: int = 5) -> Signed:
    if names is None:
        names = [str(number) for number in range(len(texts))]
    ids = [digest("test", name) for name in names]
    columns = {"id": pa.array(ids), "text": pa.array(texts, pa.large_string())}
    return signer(ngram).sign(pa.record_batch(columns))


def clusters_of(
    texts: list[str], threshold: float = 0.8, names: list[str] | None = None
) -> Clusters:
    return find_clusters(signed(texts, names), threshold, BANDS, ROWS)


def cluster_count(clusters: Clusters) -> int:
    return len(np.unique(clusters.representative))


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


def test_signatures_equal_datasketchs() -> None:
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
    for original, copy in zip(originals, copies, strict=True):
        assert jaccard(ngrams(original), ngrams(copy)) > 0.85
    clusters = clusters_of(originals + copies)
    together = clusters.representative[:300] == clusters.representative[300:]
    assert together.mean() >= 0.99
    assert cluster_count(clusters) >= 300


@pytest.mark.parametrize(("share", "together"), [(0.01, True), (0.08, False)])
def test_the_threshold_decides(share: float, together: bool) -> None:
    chance = random.Random(4)
    text = essay(chance, 800)
    clusters = clusters_of([text, changed(text, chance, share)])
    assert (clusters.representative[0] == clusters.representative[1]) == together


def test_a_chain_is_one_cluster_though_its_ends_differ() -> None:
    chance = random.Random(5)
    a = essay(chance, 600)
    b = changed(a, chance, 0.018)
    c = changed(b, chance, 0.018)
    d = changed(c, chance, 0.018)
    sets = [ngrams(text) for text in (a, b, c, d)]
    for one, following in pairwise(sets):
        assert jaccard(one, following) > 0.8
    assert jaccard(sets[0], sets[3]) < 0.8
    assert cluster_count(clusters_of([a, b, c, d], threshold=0.78)) == 1


def test_exact_means_equal_but_for_case_and_white_space() -> None:
    clusters = clusters_of(["One two  three", "one TWO\nthree", "one two four"])
    assert clusters.exact.sum() == 1
    assert cluster_count(clusters) == 2


def test_the_longest_text_stands_for_a_cluster_then_the_smallest_id() -> None:
    text = essay(random.Random(6))
    names = ["a", "b", "c"]
    smaller = min(range(2), key=lambda n: digest("test", names[n]))
    equal = clusters_of([text, text], names=names[:2])
    assert set(equal.representative) == {smaller}
    one_longer = clusters_of([text, text, text + " more"], names=names)
    assert set(one_longer.representative) == {2}


def test_texts_without_words_are_not_all_one() -> None:
    assert cluster_count(clusters_of(["===", "***", "..."])) == 3


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.95])
def test_derived_bands_find_999_of_1000_pairs_at_the_threshold(threshold: float) -> None:
    bands, rows = DedupConfig(threshold=threshold).bands_and_rows()
    assert 1 - (1 - threshold**rows) ** bands >= 0.999
    assert bands * rows <= CONFIG.permutations


@pytest.mark.slow
@pytest.mark.parametrize(
    "share",
    [0.0, 0.05, 0.4],
    ids=["identical", "nearly identical", "similar below the threshold"],
)
def test_twenty_thousand_similar_documents_take_seconds(share: float) -> None:
    """share: of each document's MinHash values, those that differ."""
    count = 20_000
    chance = np.random.default_rng(0)
    base = chance.integers(0, 2**32, CONFIG.permutations, np.uint32)
    signatures = np.tile(base, (count, 1))
    other = chance.random(signatures.shape) < share
    signatures[other] = chance.integers(0, 2**32, int(other.sum()), np.uint32)
    digests = np.zeros((count, 2), np.uint64)
    if share:
        digests = chance.integers(0, 2**63, (count, 2), np.uint64)
    ids = np.frombuffer(chance.bytes(16 * count), "V16")
    documents = Signed(ids, digests, np.full(count, 100), signatures, 0)
    begin = time.process_time()
    clusters = find_clusters(documents, 0.8, BANDS, ROWS)
    assert time.process_time() - begin < 20
    kept = cluster_count(clusters)
    assert kept == 1 if share < 0.1 else kept > count * 0.9
