"""Shingles and MinHash signatures (Broder 1997), with datasketch's permutations (affine32).

A shingle is an n-gram of words. Signatures are equal to those that datasketch computes from the
same shingle hashes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from datasketch import MinHash

from stages.digests import seed_for
from stages.text.ngrams import WordHashes, ngram_hashes
from stages.text.words import Folding, Words, folded, words

Hashes32 = npt.NDArray[np.uint32]

_BLOCK = 256  # shingles permuted at a time: the products stay in the L2 cache
_ALL_ONES_32 = 0xFFFF_FFFF
_ALL_ONES_64 = 0xFFFF_FFFF_FFFF_FFFF


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
    signatures: Hashes32
    text_bytes: int


class Signer:
    """A maker of signatures, which depend on ngram, permutations and seed alone."""

    def __init__(self, ngram: int, permutations: int, seed: int):
        """Draw the permutations.

        Args:
            ngram: Words of a shingle.
            permutations: Number of MinHash values per document.
            seed: Seed of the permutations.
        """
        self.ngram = ngram
        sketch = MinHash(
            num_perm=permutations,
            seed=seed_for(seed, "dedup", "permutations") & _ALL_ONES_32,
            scheme="affine32",
        )
        self._a, self._b = sketch.permutations
        self._word_hashes = WordHashes()

    def sign(self, batch: pa.RecordBatch) -> Signed:
        """Sign a batch of documents.

        Args:
            batch: Documents with the columns id and text.
        """
        ids = "".join(batch.column("id").to_pylist())
        chars: list[int] = []
        digests: list[tuple[int, int]] = []
        signatures: list[Hashes32] = []
        for text in batch.column("text").to_pylist():
            compared = folded(text, Folding.LOWER)
            chars.append(len(compared))
            digests.append(exact_digest(compared))
            signatures.append(self.signature(self.shingles(compared)))
        text_bytes = pc.sum(pc.binary_length(batch.column("text"))).as_py()
        permutations = len(self._a)
        return Signed(
            ids=np.frombuffer(bytes.fromhex(ids), dtype="V16"),
            digests=np.array(digests, np.uint64).reshape(-1, 2),
            chars=np.array(chars, np.int64),
            signatures=np.array(signatures, np.uint32).reshape(-1, permutations),
            text_bytes=text_bytes or 0,
        )

    def shingles(self, text: str) -> Hashes32:
        """Hash the distinct word n-grams of a folded text.

        A text with fewer words than `ngram` is one shingle; a text without words is one word.

        Args:
            text: The text, folded.

        Returns:
            Shape [distinct shingles], sorted.
        """
        found = words(text, Words.UNICODE) or [text]
        word_hashes = self._word_hashes.of(found)
        n = min(self.ngram, len(found))
        hashes = ngram_hashes(word_hashes, n)
        mixed = hashes ^ (hashes >> np.uint64(32))
        return np.unique(mixed.astype(np.uint32))

    def signature(self, shingles: Hashes32) -> Hashes32:
        """Compute the minimum of each permutation a·h + b mod 2^32 over the shingles.

        Args:
            shingles: Hashes of the shingles, shape [shingles].

        Returns:
            Shape [permutations].
        """
        mixed = _finalised(shingles)
        minimum = np.full(len(self._a), _ALL_ONES_32, np.uint32)
        a = self._a[:, None]
        b = self._b[:, None]
        for start in range(0, len(mixed), _BLOCK):
            permuted = a * mixed[start : start + _BLOCK] + b
            np.minimum(minimum, permuted.min(axis=1), out=minimum)
        return minimum


def exact_digest(text: str) -> tuple[int, int]:
    """Hash a folded text to 128 bits, as two numbers of 64, regardless of white space."""
    data = " ".join(text.split()).encode("utf-8", "surrogatepass")
    digest = xxhash.xxh3_128_intdigest(data)
    return digest >> 64, digest & _ALL_ONES_64


def _finalised(hashes: Hashes32) -> Hashes32:
    """Apply MurmurHash3's 32-bit finalizer, as datasketch does before the permutations."""
    x = hashes ^ (hashes >> np.uint32(16))
    x = x * np.uint32(0x85EBCA6B)
    x = x ^ (x >> np.uint32(13))
    x = x * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))
