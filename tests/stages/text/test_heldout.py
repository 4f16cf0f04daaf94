"""Draws by hash depend on the seed and the key alone."""

from __future__ import annotations

import random

import pytest

from stages.text.heldout import first_by_hash, first_by_id, hash_share, is_drawn, split_of

KEYS = [f"document {number}" for number in range(2000)]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_about_the_share_is_drawn(share: float) -> None:
    drawn = sum(is_drawn(share, 0, "purpose", key) for key in KEYS)
    assert abs(drawn / len(KEYS) - share) < 0.03


def test_a_larger_share_draws_what_a_smaller_one_draws() -> None:
    few = {key for key in KEYS if is_drawn(0.1, 0, "purpose", key)}
    many = {key for key in KEYS if is_drawn(0.2, 0, "purpose", key)}
    assert few < many


def test_seeds_and_purposes_draw_independently() -> None:
    one = {key for key in KEYS if is_drawn(0.5, 0, "purpose", key)}
    for seed, purpose in ((1, "purpose"), (0, "other")):
        other = {key for key in KEYS if is_drawn(0.5, seed, purpose, key)}
        assert 0.4 < len(one & other) / len(one) < 0.6


def test_both_forms_of_the_draw_agree() -> None:
    for key in KEYS:
        assert is_drawn(0.3, 0, "heldout", key) == (hash_share(0, "heldout", key) < 0.3)
        assert (split_of(0, 0.3, key) == "heldout") == is_drawn(0.3, 0, "heldout", key)


def test_the_first_by_hash_do_not_depend_on_the_order_of_rows() -> None:
    shuffled = random.Random(0).sample(KEYS, len(KEYS))
    drawn = first_by_hash(KEYS, 20, 0, "sample", str)
    assert drawn == first_by_hash(shuffled, 20, 0, "sample", str)
    assert drawn == first_by_hash(KEYS, 40, 0, "sample", str)[:20]
    assert drawn != first_by_hash(KEYS, 20, 1, "sample", str)


def test_fewer_rows_than_asked_for_are_all_drawn() -> None:
    assert sorted(first_by_hash(KEYS[:3], 20, 0, "sample", str)) == sorted(KEYS[:3])
    assert first_by_id(["b", "a"], 20, str) == ["a", "b"]
