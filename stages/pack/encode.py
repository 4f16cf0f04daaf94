"""Turns text into token ids, exactly.

The text of special tokens stays text, and every byte is counted once.
"""

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

from data_contracts import ArtifactKey, ContractError, open_artifact
from data_contracts.bundles import LLAMA3_SPLIT
from stages import tokenizer_files

# Characters encoded at once: so few that a foreign letter slows down a paragraph, not a document.
PIECE_CHARS = 1 << 10
MAX_CACHED_WORDS = 1 << 20
MAX_CACHED_WORD_CHARS = 64

# No word of Llama 3's split reaches from a line break into what is not white space, so a cut there
# changes no id.
_SAFE_CUT = re.compile(r"[\r\n](?=\S)")

# Llama 3's split for text in ASCII. Python's re does not know \p; other text is left to the
# tokenizer, which has the Unicode tables.
_ASCII_SPLIT = re.compile(
    LLAMA3_SPLIT.replace(r"\p{L}+", "[A-Za-z]+")
    .replace(r"\p{N}{", "[0-9]{")
    .replace(r"\p{L}", "A-Za-z")
    .replace(r"\p{N}", "0-9"),
    re.ASCII,
)


class _WordIds(dict[str, bytes]):
    """Word → its ids as int32 bytes, cached.

    A word has the same ids wherever it occurs, and most words of a text have occurred before.
    """

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, word: str) -> bytes:
        encoding = self._tokenizer.encode(word, add_special_tokens=False)
        ids = _as_bytes(encoding.ids)
        if len(word) <= MAX_CACHED_WORD_CHARS and len(self) < MAX_CACHED_WORDS:
            self[word] = ids
        return ids


def _as_bytes(ids: list[int]) -> bytes:
    return np.asarray(ids, dtype=np.int32).tobytes()


@dataclass(frozen=True)
class Encoder:
    """An encoder of documents with one tokenizer.

    Attributes:
        tokenizer: The tokenizer, which treats the text of special tokens as text.
        token_bytes: UTF-8 bytes that each id represents, 0 for special tokens; shape [vocabulary].
        end_of_text: The id that ends a document.
        words: The ids of words seen so far.
    """

    tokenizer: Tokenizer
    token_bytes: np.ndarray
    end_of_text: int
    words: _WordIds

    @property
    def vocabulary_size(self) -> int:
        return len(self.token_bytes)

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Encode texts as the tokenizer encodes each whole text.

        Returns:
            The ids of each text as int32, without end-of-text.

        Raises:
            ContractError: The ids of a text do not represent exactly its bytes.
        """
        encoded = []
        with _one_thread():
            for text in texts:
                ids = np.frombuffer(b"".join(self._pieces(text)), dtype=np.int32)
                self._check_bytes(text, ids)
                encoded.append(ids)
        return encoded

    def _check_bytes(self, text: str, ids: np.ndarray) -> None:
        expected = len(text.encode())
        found = int(self.token_bytes[ids].sum())
        if found != expected:
            raise ContractError(
                f"tokenizer, on the text {text[:40]!r}…",
                f"its ids represent {found} bytes of {expected}",
                "train the tokenizer again",
            )

    def _pieces(self, text: str) -> Iterator[bytes]:
        """Yield the ids of consecutive words or pieces of a text, as int32 bytes."""
        for piece in cut(text, PIECE_CHARS):
            if piece.isascii():
                yield from map(self.words.__getitem__, _ASCII_SPLIT.findall(piece))
            else:
                # The fast variant computes no offsets.
                (encoding,) = self.tokenizer.encode_batch_fast([piece], add_special_tokens=False)
                yield _as_bytes(encoding.ids)


@cache
def encoder_of(tokenizer: ArtifactKey) -> Encoder:
    """Load the encoder of a tokenizer, once per process, on any machine that reaches the store."""
    return encoder(open_artifact(tokenizer).file("tokenizer"))


@cache
def encoder(path: Path) -> Encoder:
    """Load the encoder of a tokenizer.json, once per process.

    Raises:
        ContractError: The tokenizer does not have the token that ends a document.
    """
    tokenizer = tokenizer_files.load(path, f"tokenizer {path}")
    tokenizer.encode_special_tokens = True
    end_of_text = _end_of_text(path, tokenizer)
    return Encoder(tokenizer, _token_bytes(tokenizer), end_of_text, _WordIds(tokenizer))


def cut(text: str, size: int) -> Iterator[str]:
    """Cut a text into pieces that are encoded exactly like the whole.

    Each cut is at the first end of a line after `size` characters where no word continues.
    """
    start = 0
    while len(text) - start > size:
        line_end = _SAFE_CUT.search(text, start + size)
        if line_end is None:
            break
        yield text[start : line_end.end()]
        start = line_end.end()
    if start < len(text):
        yield text[start:]


def _token_bytes(tokenizer: Tokenizer) -> np.ndarray:
    """Return how many UTF-8 bytes each id represents, [vocabulary]."""
    special = set()
    for number, added in tokenizer.get_added_tokens_decoder().items():
        if added.special:
            special.add(number)
    sizes = np.zeros(tokenizer.get_vocab_size(), dtype=np.int64)
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    for token, number in tokenizer.get_vocab().items():
        if number not in special and alphabet.issuperset(token):
            sizes[number] = len(token)  # each character of the alphabet represents one byte
    return sizes


def _end_of_text(path: Path, tokenizer: Tokenizer) -> int:
    token = tokenizer_files.special_tokens(path.parent, f"tokenizer {path.parent}")["eos_token"]
    number = tokenizer.token_to_id(token) if token else None
    if number is None:
        raise ContractError(
            str(path),
            f"has no token {token!r}, which tokenizer_config.json names as eos_token",
            "train the tokenizer again",
        )
    return number


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep tokenizers from starting its own threads in each worker.

    It reads this variable at every call.
    """
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
