"""How many bits per byte of UTF-8 text a model needs, and how many xz needs.

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
    """What one page costs the model.

    Attributes:
        id: The page.
        nats: Minus the log-likelihood of the whole text.
        bytes: The size of the text in UTF-8.
    """

    id: str
    nats: float
    bytes: int


@dataclass(frozen=True)
class Window:
    """A part of a page that fits the context.

    Attributes:
        page: The number of the page.
        inputs: The tokens that the model reads.
        targets: The token to predict from each input.
        seen: How many of the first targets an earlier window scored.
    """

    page: int
    inputs: list[int]
    targets: list[int]
    seen: int


def windows(page: int, first: int, tokens: list[int], length: int, stride: int) -> Iterator[Window]:
    """Cover `tokens` with windows so that each token is predicted exactly once.

    A token is predicted from `first` and the tokens before it, as far as they fit the window. The
    first window scores all its tokens. Each later one scores its last `stride`, which have at least
    `length - stride` tokens before them.

    Args:
        page: Number of the page.
        first: The token before the page.
        tokens: The tokens of the page.
        length: Tokens of a window.
        stride: Tokens that each window but the first scores.
    """
    inputs = [first, *tokens[:-1]]
    scored = 0
    while scored < len(tokens):
        step = min(stride, length) if scored else length
        end = min(len(tokens), scored + step)
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
    """Yield the cost of each page, in order.

    Memory: one page, and one batch of windows with the logits of the tokens that they score.

    Args:
        model: A causal language model of transformers.
        tokenizer: It must read special tokens in the text as plain text (encode_special_tokens).
        first: The token before each page.
        pages: The (id, text) of each page.
        length: Tokens of a window.
        stride: Tokens that each window but the first scores.
        batch_size: Windows per forward pass.
    """
    unfinished: dict[int, Page] = {}

    def all_windows() -> Iterator[Window]:
        for number, (name, text) in enumerate(pages):
            unfinished[number] = Page(name, 0.0, len(text.encode("utf-8")))
            tokens = tokenizer.encode(text, add_special_tokens=False).ids
            yield from windows(number, first, tokens, length, stride)

    stream = all_windows()
    while batch := list(islice(stream, batch_size)):
        for window, nats in zip(batch, _nats(model, batch), strict=True):
            page = unfinished[window.page]
            unfinished[window.page] = Page(page.id, page.nats + nats, page.bytes)
        last_page = batch[-1].page  # it may continue in the next batch
        for number in [number for number in unfinished if number < last_page]:
            yield unfinished.pop(number)
    yield from unfinished.values()  # the last page, and pages without tokens after it


def _nats(model: Any, batch: list[Window]) -> list[float]:
    """Return the cost of the tokens that each window scores.

    Logits are made for these tokens only.
    """
    longest = max(len(window.inputs) for window in batch)
    device = next(model.parameters()).device
    padded_inputs = [window.inputs + [0] * (longest - len(window.inputs)) for window in batch]
    ids_BT = torch.tensor(padded_inputs, device=device)
    targets_BT = torch.tensor([_masked(window, longest) for window in batch], device=device)
    # attention looks back, so no token sees the padding on the right
    hidden_BTD = model.get_decoder()(ids_BT).last_hidden_state
    row_M, column_M = (targets_BT != IGNORED).nonzero(as_tuple=True)
    logits_MV = model.get_output_embeddings()(hidden_BTD[row_M, column_M])
    nats_M = cross_entropy(logits_MV.float(), targets_BT[row_M, column_M], reduction="none")
    nats_B = torch.zeros(len(batch), dtype=torch.float64, device=device)
    return nats_B.index_add_(0, row_M, nats_M.double()).tolist()


def _masked(window: Window, longest: int) -> list[int]:
    """Return the targets that the window scores; IGNORED for the others and for the padding."""
    padding = [IGNORED] * (longest - len(window.targets))
    return [IGNORED] * window.seen + window.targets[window.seen :] + padding


def bits_per_byte(pages: list[Page]) -> float | None:
    """Return the figure of all pages together; None without bytes or without a number.

    Args:
        pages: What each page costs.
    """
    size = sum(page.bytes for page in pages)
    nats = sum(page.nats for page in pages)
    if not size or not math.isfinite(nats):
        return None
    return nats / math.log(2) / size


def standard_error(pages: list[Page]) -> float | None:
    """Return the standard error of `bits_per_byte` over pages drawn at random.

    It is that of a ratio, by linearisation (Cochran, Sampling Techniques, 1977, section 2.11).

    Args:
        pages: What each page costs.

    Returns:
        Bits per byte; None for fewer than two pages.
    """
    ratio, n = bits_per_byte(pages), len(pages)
    if ratio is None or n < 2:
        return None
    residuals = [page.nats / math.log(2) - ratio * page.bytes for page in pages]
    variance = sum(residual * residual for residual in residuals) / (n - 1)
    mean_bytes = sum(page.bytes for page in pages) / n
    return math.sqrt(variance / n) / mean_bytes


def xz_bits_per_byte(texts: Iterable[str]) -> float | None:
    """Return what `xz -9e` needs for the same bytes, all pages in one file.

    It uses about 0.7 GB of memory. None if there are no bytes.

    Args:
        texts: The texts of the pages.
    """
    compressor = lzma.LZMACompressor(preset=9 | lzma.PRESET_EXTREME)
    size = packed = 0
    for text in texts:
        data = text.encode("utf-8")
        size += len(data)
        packed += len(compressor.compress(data))
    packed += len(compressor.flush())
    return 8 * packed / size if size else None
