"""What a step reads is a pure function of seed and step, and an epoch covers the stream."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data_contracts import Artifact, InputError
from stages.digests import digest
from stages.lm.training.batches import TokenStream, Windows, permuted, visits


@pytest.fixture
def stream(publish: Callable[..., Artifact], tmp_path: Path) -> TokenStream:
    """1,003 tokens, all different, in documents of 1 to 40."""
    rows, start, length = [], 0, 1
    while start < 1003:
        end = min(start + length, 1003)
        rows.append(
            {
                "document": digest(str(start)),
                "part": 0,
                "tokens": list(range(start, end)),
                "bytes": end - start,
            }
        )
        start, length = end, length % 40 + 1
    shards = publish(
        "token_shards", train=rows, heldout=[], files={"tokenizer.sha256": b"0" * 64 + b" 2000"}
    )
    return TokenStream.open(shards, "train", tmp_path / "cache", 2000)


def epoch(windows: Windows, number: int) -> torch.Tensor:
    """Labels of one epoch; batches may straddle its ends."""
    first = number * windows.rows_per_epoch
    steps = range(
        first // windows.batch_size, (first + windows.rows_per_epoch - 1) // windows.batch_size + 1
    )
    rows = torch.cat([windows.rows(step, 0, windows.batch_size)["labels"] for step in steps])
    skip = first - steps[0] * windows.batch_size
    return rows[skip : skip + windows.rows_per_epoch]


@pytest.mark.parametrize("number", [0, 1, 5])
def test_each_token_is_predicted_at_most_once_an_epoch_and_fewer_than_a_window_are_left_out(
    stream: TokenStream, number: int
) -> None:
    labels = epoch(Windows(stream, 16, 7, seed=1), number).flatten().tolist()
    assert len(labels) == len(set(labels))
    assert 1003 - len(labels) < 16


def test_epochs_differ_in_order_and_in_where_windows_begin(stream: TokenStream) -> None:
    windows = Windows(stream, 16, 7, seed=1)
    first, second = epoch(windows, 0), epoch(windows, 1)
    assert not torch.equal(first, second)
    assert {int(row[0]) for row in first} != {int(row[0]) for row in second}


def test_labels_are_the_next_tokens(stream: TokenStream) -> None:
    batch = Windows(stream, 16, 7, seed=1).rows(3, 0, 7)
    assert torch.equal((batch["ids"] + 1) % 1003, batch["labels"])


def test_a_batch_is_the_same_however_it_is_cut_and_whenever_it_is_asked_for(
    stream: TokenStream,
) -> None:
    windows = Windows(stream, 16, 8, seed=1)
    whole = windows.rows(5, 0, 8)["ids"]
    again = Windows(stream, 16, 8, seed=1)
    assert torch.equal(whole, torch.cat([again.rows(5, start, 2)["ids"] for start in (0, 2, 4, 6)]))
    assert not torch.equal(whole, Windows(stream, 16, 8, seed=2).rows(5, 0, 8)["ids"])


def test_segments_are_the_documents_of_the_tokens(stream: TokenStream) -> None:
    batch = Windows(stream, 16, 8, seed=1, segments=True).rows(0, 0, 8)
    ends = np.asarray(stream.ends)
    for ids, segments in zip(batch["ids"].tolist(), batch["segments"].tolist(), strict=True):
        assert segments == [int((ends <= token).sum()) for token in ids]


def test_the_documents_of_a_step_are_those_its_tokens_come_from(stream: TokenStream) -> None:
    windows = Windows(stream, 16, 2, seed=1)
    tokens = (
        windows.rows(4, 0, 2)["ids"].flatten().tolist()
        + windows.rows(4, 0, 2)["labels"].flatten().tolist()
    )
    starts = [0, *stream.ends.tolist()]
    wanted = {digest(str(max(start for start in starts if start <= token))) for token in tokens}
    assert windows.documents(4) == sorted(wanted)


@pytest.mark.parametrize("size", [1, 2, 3, 100, 1023, 4097])
def test_the_order_of_an_epoch_is_a_permutation(size: int) -> None:
    order = permuted(np.arange(size), size, seed=9)
    assert sorted(order.tolist()) == list(range(size))
    assert size < 100 or abs(np.corrcoef(order, np.arange(size))[0, 1]) < 0.2


def test_visits_go_through_each_row_once_an_epoch_across_the_end_of_one() -> None:
    epochs, rows = visits(8, 8, 10, seed=1)
    assert epochs.tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    before, after = visits(0, 8, 10, seed=1)[1], visits(16, 4, 10, seed=1)[1]
    assert sorted([*before, *rows[:2]]) == sorted([*rows[2:], *after]) == list(range(10))
    assert [*before, *rows[:2]] != [*rows[2:], *after]


def test_too_few_tokens_for_one_window_are_refused_with_the_count(stream: TokenStream) -> None:
    with pytest.raises(InputError, match=r"has 1003 tokens, one window of the model takes 2049"):
        Windows(stream, 2048, 1, seed=0)


def test_a_cache_cut_short_by_a_kill_is_written_again(stream: TokenStream, tmp_path: Path) -> None:
    (tmp_path / "cache" / "train.ends.npy").unlink()
    (tmp_path / "cache" / "train.tokens").write_bytes(b"half")
    assert len(TokenStream.open(stream.source, "train", tmp_path / "cache", 2000)) == 1003


@pytest.mark.parametrize("name", ["train.tokens", "train.ends.npy"])
def test_a_cache_whose_files_do_not_fit_each_other_is_written_again(
    name: str, stream: TokenStream, tmp_path: Path
) -> None:
    half = (tmp_path / "cache" / name).read_bytes()[:100]
    (tmp_path / "cache" / name).unlink()  # the stream still maps the old file
    (tmp_path / "cache" / name).write_bytes(half)
    again = TokenStream.open(stream.source, "train", tmp_path / "cache", 2000)
    assert again.tokens.tolist() == list(range(1003))
    assert again.ends[-1] == 1003
