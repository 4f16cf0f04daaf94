"""Shingles and MinHash signatures (Broder 1997), with datasketch's permutations (affine32).

The hash of a shingle is mixed from the hashes of its words, so each distinct word is hashed once
and a shingle never becomes a string. Signatures are equal to those that datasketch computes from
the same shingle hashes.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from datasketch import MinHash

from stages.digests import seed_for

Hashes = npt.NDArray[np.uint32]

_WORD = re.compile(r"\w+")
_BLOCK = 256  # shingles permuted at a time: the products stay in the L2 cache
MAX_CACHED_WORDS = 1_000_000


@dataclass(frozen=True)
class Signed:
    """N documents, reduced to what the search for duplicates needs.

    Attributes:
        ids: 128 bits each, shape [N].
        digests: 128 bits of each text as two numbers, shape [N, 2].
        chars: Characters of each text, shape [N].
        signatures: Shape [N, permutations].
        text_bytes: UTF-8 bytes of all texts.
    """

    ids: npt.NDArray[np.void]
    digests: npt.NDArray[np.uint64]
    chars: npt.NDArray[np.int64]
    signatures: Hashes
    text_bytes: int


class Signer:
    """Computes signatures. They depend on ngram, permutations and seed, and on nothing else."""

    def __init__(self, ngram: int, permutations: int, seed: int):
        self.ngram = ngram
        sketch = MinHash(
            num_perm=permutations,
            seed=seed_for(seed, "dedup", "permutations") & 0xFFFF_FFFF,
            scheme="affine32",
        )
        self._a, self._b = sketch.permutations
        self._word_codes = _WordCodes()

    def sign(self, batch: pa.RecordBatch) -> Signed:
        """Signs a batch with the columns id and text."""
        ids = batch.column("id").to_pylist()
        texts = [folded(text) for text in batch.column("text").to_pylist()]
        digests = [exact_digest(text) for text in texts]
        signatures = [self.signature(self.shingles(text)) for text in texts]
        return Signed(
            ids=np.frombuffer(bytes.fromhex("".join(ids)), dtype="V16"),
            digests=np.array(digests, np.uint64).reshape(-1, 2),
            chars=np.fromiter(map(len, texts), np.int64, len(texts)),
            signatures=np.array(signatures, np.uint32).reshape(-1, len(self._a)),
            text_bytes=pc.sum(pc.binary_length(batch.column("text"))).as_py() or 0,
        )

    def shingles(self, text: str) -> Hashes:
        """Hashes the distinct word n-grams of a folded text.

        A text with fewer words than `ngram` is one shingle; a text without words is one word.
        """
        words = _WORD.findall(text) or [text]
        if len(self._word_codes) > MAX_CACHED_WORDS:
            self._word_codes.clear()
        codes = map(self._word_codes.__getitem__, words)
        word_codes = np.fromiter(codes, np.uint64, len(words))
        shingle_codes = word_codes
        for k in range(1, min(self.ngram, len(words))):
            # The product wraps around at 64 bits, as intended.
            shingle_codes = shingle_codes[:-1] * np.uint64(0x9E3779B97F4A7C15) + word_codes[k:]
        mixed = shingle_codes ^ (shingle_codes >> np.uint64(32))
        return np.unique(mixed.astype(np.uint32))

    def signature(self, shingles: Hashes) -> Hashes:
        """The minimum of each permutation a·h + b mod 2^32 over the shingles."""
        mixed = _finalised(shingles)
        minimum = np.full(len(self._a), 0xFFFF_FFFF, np.uint32)
        a = self._a[:, None]
        b = self._b[:, None]
        for start in range(0, len(mixed), _BLOCK):
            permuted = a * mixed[start : start + _BLOCK] + b
            np.minimum(minimum, permuted.min(axis=1), out=minimum)
        return minimum


class _WordCodes(dict[str, int]):
    """Word → 64-bit hash, computed once. A dict looks it up in C for every word of every text."""

    def __missing__(self, word: str) -> int:
        code = xxhash.xxh3_64_intdigest(word.encode("utf-8", "surrogatepass"))
        self[word] = code
        return code


def folded(text: str) -> str:
    """Returns the form in which texts are compared: case and Unicode form do not matter."""
    lower = text.lower()
    return lower if lower.isascii() else unicodedata.normalize("NFKC", lower)


def exact_digest(text: str) -> tuple[int, int]:
    """Hashes a folded text to 128 bits, as two numbers of 64, regardless of white space."""
    data = " ".join(text.split()).encode("utf-8", "surrogatepass")
    digest = xxhash.xxh3_128_intdigest(data)
    return digest >> 64, digest & 0xFFFF_FFFF_FFFF_FFFF


def _finalised(hashes: Hashes) -> Hashes:
    """MurmurHash3's 32-bit finalizer, which datasketch applies before the permutations."""
    x = hashes ^ (hashes >> np.uint32(16))
    x = x * np.uint32(0x85EBCA6B)
    x = x ^ (x >> np.uint32(13))
    x = x * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))
