"""Text to token ids, exactly: the text of special tokens stays text, and every byte is counted once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, pre_tokenizers

from data_contracts import ContractError
from data_contracts.bundles import LLAMA3_SPLIT
from stages import tokenizer_files

PIECE = (
    1 << 10
)  # characters; small, so that one foreign letter slows down a paragraph and not a document
CACHED_WORDS = 1 << 20
LONGEST_CACHED = 64

# Llama 3's split never lets a word reach from a line break into what is not white space, so a cut there changes no id.
_SAFE_CUT = re.compile(r"[\r\n](?=\S)")

# The same split where every character is ASCII; Python's re knows no \p. Other text is left to the tokenizer and its Unicode tables.
_ASCII_SPLIT = re.compile(
    LLAMA3_SPLIT.replace(r"\p{L}+", "[A-Za-z]+")
    .replace(r"\p{N}{", "[0-9]{")
    .replace(r"\p{L}", "A-Za-z")
    .replace(r"\p{N}", "0-9"),
    re.ASCII,
)


class _Words(dict[str, bytes]):
    """Word → its ids as int32 bytes. A word has the same ids wherever it stands, and most words of a text have been seen."""

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, word: str) -> bytes:
        ids = np.asarray(
            self._tokenizer.encode(word, add_special_tokens=False).ids, dtype=np.int32
        ).tobytes()
        if len(word) <= LONGEST_CACHED and len(self) < CACHED_WORDS:
            self[word] = ids
        return ids


@dataclass(frozen=True)
class Encoder:
    """tokenizer: with special tokens off. token_bytes: UTF-8 bytes that each id stands for (0 for special tokens), shape [V]."""

    tokenizer: Tokenizer
    token_bytes: np.ndarray
    end_of_text: int
    words: _Words

    @property
    def vocabulary_size(self) -> int:
        return len(self.token_bytes)

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Ids of each text without end-of-text, as int32 arrays. Equal to what the tokenizer gives for the whole text.

        Raises ContractError if the ids of a text do not stand for exactly its bytes.
        """
        with _one_thread():
            found = [np.frombuffer(b"".join(self._pieces(text)), dtype=np.int32) for text in texts]
        for text, ids in zip(texts, found, strict=True):
            wanted, got = len(text.encode()), int(self.token_bytes[ids].sum())
            if wanted != got:
                raise ContractError(
                    f"tokenizer, on the text {text[:40]!r}…",
                    f"its ids stand for {got} bytes of {wanted}",
                    "train the tokenizer anew",
                )
        return found

    def _pieces(self, text: str) -> Iterator[bytes]:
        for piece in cut(text, PIECE):
            if piece.isascii():
                yield from map(self.words.__getitem__, _ASCII_SPLIT.findall(piece))
            else:
                (encoding,) = self.tokenizer.encode_batch_fast(
                    [piece], add_special_tokens=False
                )  # fast: without offsets
                yield np.asarray(encoding.ids, dtype=np.int32).tobytes()


@cache
def encoder(path: Path) -> Encoder:
    """The encoder of a tokenizer.json, one per process."""
    tokenizer = tokenizer_files.load(path, f"tokenizer {path}")
    tokenizer.encode_special_tokens = True
    special = {
        number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special
    }
    token_bytes = np.zeros(tokenizer.get_vocab_size(), dtype=np.int64)
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    for token, number in tokenizer.get_vocab().items():
        if number not in special and alphabet.issuperset(token):
            token_bytes[number] = len(token)  # a character of the alphabet stands for a byte
    return Encoder(tokenizer, token_bytes, _end_of_text(path, tokenizer), _Words(tokenizer))


def cut(text: str, size: int) -> Iterator[str]:
    """Pieces of `text` that are encoded as the whole would be: cut where a line ends, at the first such place after `size`."""
    start = 0
    while len(text) - start > size and (found := _SAFE_CUT.search(text, start + size)):
        yield text[start : found.end()]
        start = found.end()
    if start < len(text):
        yield text[start:]


def _end_of_text(path: Path, tokenizer: Tokenizer) -> int:
    token = tokenizer_files.special_tokens(path.parent, f"tokenizer {path.parent}")["eos_token"]
    number = tokenizer.token_to_id(token) if token else None
    if number is None:
        raise ContractError(
            str(path),
            f"has no token {token!r}, which tokenizer_config.json names as eos_token",
            "train the tokenizer anew",
        )
    return number


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keeps tokenizers, which reads this variable at every call, from starting threads of its own in each worker."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
