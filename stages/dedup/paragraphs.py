"""Paragraphs that another document already has: paragraph deduplication as in CCNet (Wenzek et al. 2020, arXiv 1911.00359, section 3.1).

Near-duplicate documents go as wholes; what documents of their own share, such as an inherited method or a licence notice, goes here. The
first of equal paragraphs stays, those of train before those of heldout, then by document id: so documents held out keep what no training
document says. A blank line ends a paragraph. Paragraphs shorter than the bound, such as headings, stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from stages.dedup.minhash import folded

_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")


@dataclass(frozen=True)
class Paragraphs:
    """The paragraphs of N documents, document after document.

    codes: (P,), a hash of each that is long enough to go, blind to case and white space.
    counts, short: (N,), how many of those each document has, and how many that stay in any case.
    """

    codes: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.int64]
    short: npt.NDArray[np.int64]

    @classmethod
    def of(cls, texts: pa.Array, min_chars: int) -> Paragraphs:
        """min_chars 0: no paragraph may go, and none is looked for."""
        codes, counts, short = [], [], []
        for text in texts.to_pylist() if min_chars else ():
            paragraphs = _split(text)
            mine = [_code(paragraph) for paragraph in paragraphs if len(paragraph) >= min_chars]
            codes += mine
            counts.append(len(mine))
            short.append(len(paragraphs) - len(mine))
        none = [0] * (len(texts) - len(counts))
        return cls(
            np.array(codes, np.uint64),
            np.array(counts + none, np.int64),
            np.array(short + none, np.int64),
        )

    @classmethod
    def joined(cls, parts: Iterable[Paragraphs]) -> Paragraphs:
        parts = list(parts)
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("codes", "counts", "short")
            )
        )

    def repeated(self, rank: npt.NDArray[np.int64]) -> Repeated:
        """rank: (N,), which document comes first; one with a negative rank takes no part, it loses nothing and takes nothing away."""
        rank_P = np.repeat(rank, self.counts)
        part = np.flatnonzero(rank_P >= 0)
        order = part[np.lexsort((part, rank_P[part], self.codes[part]))]
        gone = np.zeros(len(self.codes), bool)
        gone[order[1:]] = self.codes[order[1:]] == self.codes[order[:-1]]
        starts = np.concatenate([[0], np.cumsum(self.counts)])
        gone_before = np.concatenate([[0], np.cumsum(gone)])
        lost = gone_before[starts[1:]] - gone_before[starts[:-1]]
        return Repeated(gone, starts, (lost == self.counts) & (self.short == 0) & (lost > 0))


@dataclass(frozen=True)
class Repeated:
    """Which paragraphs go. gone: (P,); starts: (N + 1,), where those of a document begin; whole: (N,), documents with nothing left."""

    gone: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int64]
    whole: npt.NDArray[np.bool_]

    def cut(self, texts: pa.ChunkedArray, first: int, min_chars: int) -> pa.Array:
        """`texts` of the documents from number `first` on, without the paragraphs that go. A text that would be empty stays as it is."""
        return pa.array(
            [self._cut(text, first + at, min_chars) for at, text in enumerate(texts.to_pylist())],
            texts.type,
        )

    def _cut(self, text: str, document: int, min_chars: int) -> str:
        gone = self.gone[self.starts[document] : self.starts[document + 1]]
        if not gone.any() or self.whole[document]:
            return text
        marks = iter(gone)
        return "\n\n".join(
            paragraph for paragraph in _split(text) if len(paragraph) < min_chars or not next(marks)
        )


def _split(text: str) -> list[str]:
    return [paragraph for paragraph in _BLANK_LINES.split(text) if not paragraph.isspace()]


def _code(paragraph: str) -> int:
    return xxhash.xxh3_64_intdigest(
        " ".join(folded(paragraph).split()).encode("utf-8", "surrogatepass")
    )
