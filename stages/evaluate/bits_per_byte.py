"""How many bits per byte of UTF-8 text a model needs, and what xz needs.

Shapes: B windows, T tokens, D width, V vocabulary, M tokens that the windows score.
"""

from __future__ import annotations

import lzma
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy

IGNORED = -100


@dataclass(frozen=True)
class Page:
    """nats: minus the log-likelihood of the whole text."""

    id: str
    nats: float
    bytes: int


@dataclass(frozen=True)
class Window:
    """inputs and the tokens to predict from each; the first `seen` were scored by an earlier window."""

    page: int
    inputs: list[int]
    targets: list[int]
    seen: int


def windows(page: int, first: int, tokens: list[int], length: int, stride: int) -> Iterator[Window]:
    """Cover `tokens` so that each is predicted exactly once, after `first` and all tokens before it that fit into `length`.

    The first window scores all it holds, each later one its last `stride`: these see at least length - stride tokens before them.
    """
    inputs, scored = [first, *tokens[:-1]], 0
    while scored < len(tokens):
        end = min(len(tokens), length if not scored else scored + min(stride, length))
        begin = max(0, end - length)
        yield Window(page, inputs[begin:end], tokens[begin:end], scored - begin)
        scored = end


@torch.inference_mode()
def measure(
    model: Any,
    tokenizer: Tokenizer,
    first: int,
    pages: Iterable[tuple[str, str]],
    length: int,
    stride: int,
    batch_size: int,
) -> Iterator[Page]:
    """The cost of each (id, text), in order. Memory: one page, and one batch of windows with the logits of what they score.

    model: a causal language model of transformers.
    tokenizer: must write special tokens in the text as plain text (encode_special_tokens).
    """
    unfinished: dict[int, Page] = {}

    def all_windows() -> Iterator[Window]:
        for number, (name, text) in enumerate(pages):
            unfinished[number] = Page(name, 0.0, len(text.encode("utf-8")))
            yield from windows(
                number, first, tokenizer.encode(text, add_special_tokens=False).ids, length, stride
            )

    stream = all_windows()
    while batch := list(islice(stream, batch_size)):
        for window, nats in zip(batch, _nats(model, batch), strict=True):
            page = unfinished[window.page]
            unfinished[window.page] = Page(page.id, page.nats + nats, page.bytes)
        for number in [
            number for number in unfinished if number < batch[-1].page
        ]:  # that page may go on in the next batch
            yield unfinished.pop(number)
    yield from unfinished.values()  # the last, and those without tokens


def _nats(model: Any, batch: list[Window]) -> list[float]:
    """What each window's tokens cost; logits are made for these alone, not for what was scored before."""
    longest = max(len(window.inputs) for window in batch)
    device = next(model.parameters()).device
    ids_BT = torch.tensor(
        [window.inputs + [0] * (longest - len(window.inputs)) for window in batch], device=device
    )
    targets_BT = torch.tensor([_masked(window, longest) for window in batch], device=device)
    # what is padded on the right is seen by nobody: attention looks back
    hidden_BTD = model.get_decoder()(ids_BT).last_hidden_state
    row_M, place_M = (targets_BT != IGNORED).nonzero(as_tuple=True)
    logits_MV = model.get_output_embeddings()(hidden_BTD[row_M, place_M])
    nats_M = cross_entropy(logits_MV.float(), targets_BT[row_M, place_M], reduction="none")
    nats_B = torch.zeros(len(batch), dtype=torch.float64, device=device)
    return nats_B.index_add_(0, row_M, nats_M.double()).tolist()


def _masked(window: Window, longest: int) -> list[int]:
    return (
        [IGNORED] * window.seen
        + window.targets[window.seen :]
        + [IGNORED] * (longest - len(window.targets))
    )


def bits_per_byte(pages: list[Page]) -> float | None:
    """Of all pages together; None if there are none or the model gave no number."""
    size, nats = sum(page.bytes for page in pages), sum(page.nats for page in pages)
    return nats / math.log(2) / size if size and math.isfinite(nats) else None


def standard_error(pages: list[Page]) -> float | None:
    """Of that ratio over pages drawn at random (linearisation; Cochran, Sampling Techniques, 1977, section 2.11)."""
    ratio, n = bits_per_byte(pages), len(pages)
    if ratio is None or n < 2:
        return None
    residuals = [page.nats / math.log(2) - ratio * page.bytes for page in pages]
    return math.sqrt(sum(r * r for r in residuals) / (n - 1) / n) / (
        sum(page.bytes for page in pages) / n
    )


def xz_bits_per_byte(texts: Iterable[str]) -> float | None:
    """What `xz -9e` needs for the same bytes, all pages in one file. Uses about 0.7 GB of memory."""
    compressor, size, packed = lzma.LZMACompressor(preset=9 | lzma.PRESET_EXTREME), 0, 0
    for text in texts:
        data = text.encode("utf-8")
        size += len(data)
        packed += len(compressor.compress(data))
    packed += len(compressor.flush())
    return 8 * packed / size if size else None
