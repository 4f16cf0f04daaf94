"""Shingles and MinHash signatures (Broder 1997), with the permutations of datasketch (scheme affine32).

A shingle's hash is mixed from the hashes of its words, so each distinct word is hashed once and no shingle is ever a string.
Signatures are equal to those that datasketch computes from the same shingle hashes.
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
_MEMO_WORDS = 1_000_000


@dataclass(frozen=True)
class Signed:
    """Documents, N of them: ids and digests of 128 bits (N; N, 2), characters (N), signatures (N, permutations)."""

    ids: npt.NDArray[np.void]
    digests: npt.NDArray[np.uint64]
    chars: npt.NDArray[np.int64]
    signatures: Hashes
    text_bytes: int


class Signer:
    """Signs texts. seed, ngram and permutations make the signature; nothing else does."""

    def __init__(self, ngram: int, permutations: int, seed: int):
        self.ngram = ngram
        sketch = MinHash(
            num_perm=permutations,
            seed=seed_for(seed, "dedup", "permutations") & 0xFFFF_FFFF,
            scheme="affine32",
        )
        self._a, self._b = sketch.permutations
        self._words = _WordCodes()

    def sign(self, batch: pa.RecordBatch) -> Signed:
        """`batch` has the columns id and text."""
        ids, texts = (
            batch.column("id").to_pylist(),
            [folded(text) for text in batch.column("text").to_pylist()],
        )
        return Signed(
            ids=np.frombuffer(bytes.fromhex("".join(ids)), dtype="V16"),
            digests=np.array([exact_digest(text) for text in texts], np.uint64).reshape(-1, 2),
            chars=np.fromiter(map(len, texts), np.int64, len(texts)),
            signatures=np.array(
                [self.signature(self.shingles(text)) for text in texts], np.uint32
            ).reshape(-1, len(self._a)),
            text_bytes=pc.sum(pc.binary_length(batch.column("text"))).as_py() or 0,
        )

    def shingles(self, text: str) -> Hashes:
        """`text` is folded. Distinct hashes of the word n-grams; a text of fewer words is one shingle, one without words as it stands."""
        words = _WORD.findall(text) or [text]
        if len(self._words) > _MEMO_WORDS:
            self._words.clear()
        codes_1 = np.fromiter(map(self._words.__getitem__, words), np.uint64, len(words))
        codes = codes_1
        for k in range(1, min(self.ngram, len(words))):
            codes = (
                codes[:-1] * np.uint64(0x9E3779B97F4A7C15) + codes_1[k:]
            )  # wraps around, as meant
        return np.unique((codes ^ (codes >> np.uint64(32))).astype(np.uint32))

    def signature(self, shingles: Hashes) -> Hashes:
        """The least value of each permutation a·h + b mod 2^32 over the shingles."""
        mixed = _finalised(shingles)
        least = np.full(len(self._a), 0xFFFF_FFFF, np.uint32)
        a, b = self._a[:, None], self._b[:, None]
        for start in range(0, len(mixed), _BLOCK):
            np.minimum(least, (a * mixed[start : start + _BLOCK] + b).min(axis=1), out=least)
        return least


class _WordCodes(dict[str, int]):
    """Word → 64-bit hash, computed once: looked up in C for every word of every text."""

    def __missing__(self, word: str) -> int:
        code = self[word] = xxhash.xxh3_64_intdigest(word.encode("utf-8", "surrogatepass"))
        return code


def folded(text: str) -> str:
    """What two texts must have in common to count as equal: case and Unicode form do not matter."""
    lower = text.lower()
    return lower if lower.isascii() else unicodedata.normalize("NFKC", lower)


def exact_digest(text: str) -> tuple[int, int]:
    """128 bits of a folded text, blind to white space."""
    digest = xxhash.xxh3_128_intdigest(" ".join(text.split()).encode("utf-8", "surrogatepass"))
    return digest >> 64, digest & 0xFFFF_FFFF_FFFF_FFFF


def _finalised(hashes: Hashes) -> Hashes:
    """MurmurHash3's 32-bit finalizer, which datasketch applies before the permutations."""
    x = hashes ^ (hashes >> np.uint32(16))
    x = x * np.uint32(0x85EBCA6B)
    x = x ^ (x >> np.uint32(13))
    x = x * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))
