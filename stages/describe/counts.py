"""Counts for the data card, read from the tables in batches: memory does not grow with the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow.compute as pc

from data_contracts import Artifact


@dataclass(frozen=True)
class Source:
    """What one source of the crawl gave."""

    pages: int
    bytes: int
    declared_licences: int


@dataclass(frozen=True)
class Robots:
    """Evidence of what robots.txt and the pages themselves said, as counts of pages."""

    verdicts: dict[str, int]
    meta: dict[str, int]
    headers: dict[str, int]


@dataclass
class Texts:
    """The training text by source, language and licence; documents and UTF-8 bytes."""

    by_source: Counter[str] = field(default_factory=Counter)
    by_language: Counter[str] = field(default_factory=Counter)
    by_license: Counter[str] = field(default_factory=Counter)
    bytes: int = 0


NOT_DECLARED = "not declared"


def sources(raw_documents: Artifact) -> dict[str, Source]:
    """By source, sorted by name. Reads every page once: the bytes are those of the bodies."""
    pages: Counter[str] = Counter()
    size: Counter[str] = Counter()
    licensed: Counter[str] = Counter()
    for batch in raw_documents.batches("documents", ["source", "body", "license"], batch_size=256):
        lengths = pc.binary_length(batch.column("body")).to_pylist()
        for source, length, licence in zip(
            batch.column("source").to_pylist(),
            lengths,
            batch.column("license").to_pylist(),
            strict=True,
        ):
            pages[source] += 1
            size[source] += length
            licensed[source] += licence is not None
    return {
        source: Source(pages[source], size[source], licensed[source]) for source in sorted(pages)
    }


def robots(raw_documents: Artifact) -> Robots:
    """Counts of the evidence that crawl kept with every page."""
    return Robots(
        *(
            count(raw_documents, "documents", column)
            for column in ("robots", "meta_robots", "x_robots_tag")
        )
    )


def texts(training_documents: Artifact) -> Texts:
    """What the model is trained on."""
    told = Texts()
    for batch in training_documents.batches(
        "documents", ["source", "language", "license", "text"], batch_size=1024
    ):
        told.by_source.update(batch.column("source").to_pylist())
        told.by_language.update(batch.column("language").to_pylist())
        told.by_license.update(
            licence or NOT_DECLARED for licence in batch.column("license").to_pylist()
        )
        told.bytes += pc.sum(pc.binary_length(batch.column("text"))).as_py() or 0
    return told


def count(artifact: Artifact, table: str, column: str) -> dict[str, int]:
    """value → rows, most first; nulls are left out."""
    counted: Counter[str] = Counter()
    for batch in artifact.batches(table, [column]):
        counted.update(value for value in batch.column(column).to_pylist() if value is not None)
    return ranked(counted)


def total(artifact: Artifact, table: str, column: str) -> int:
    """The sum of a column of whole numbers."""
    return sum(
        pc.sum(batch.column(column)).as_py() or 0 for batch in artifact.batches(table, [column])
    )


def distinct(artifact: Artifact, table: str, column: str) -> int:
    """How many different values a column has. Keeps them in memory: for columns of ids that are few."""
    seen: set[str] = set()
    for batch in artifact.batches(table, [column]):
        seen.update(value for value in batch.column(column).to_pylist() if value is not None)
    return len(seen)


def ranked(counted: Counter[str]) -> dict[str, int]:
    """Most first, equal ones by name."""
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def shown(counted: dict[str, int], most: int = 20) -> Sequence[tuple[str, int]]:
    """The first `most`, the others together."""
    items = list(counted.items())
    rest = sum(value for _, value in items[most:])
    return items[:most] + ([("all others", rest)] if rest else [])
