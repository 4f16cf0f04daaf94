from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.collect_preferences.similarity import similarity


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("abcd", "abcd", 1),
        ("abcd", "wxyz", 0),
        ("abcd", "", 0),
        ("abcd", "axcxd", 6 / 9),
        ("今日は晴れ", "今日は雨", 6 / 9),
    ],
)
def test_similarity_is_the_share_of_the_longest_common_subsequence(a, b, expected):
    assert similarity(a, b) == similarity(b, a) == expected


@given(st.text("abc", max_size=80), st.text("abc", min_size=1, max_size=80))
def test_similarity_is_that_of_the_usual_table(a, b):
    lengths = [0] * (len(b) + 1)
    for character in a:
        before = lengths
        lengths = [0]
        for n, other in enumerate(b):
            lengths.append(before[n] + 1 if character == other else max(lengths[n], before[n + 1]))
    assert similarity(a, b) == 2 * lengths[-1] / (len(a) + len(b))


def test_long_answers_are_compared_soon():
    a, b = ("".join(random.Random(n).choices("abcdefgh ", k=10_000)) for n in range(2))
    start = time.process_time()
    similarity(a, b)
    # It takes 0.01 s. Comparing every character with every other would take over 1 s.
    assert time.process_time() - start < 0.3
