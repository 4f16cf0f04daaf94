"""Counts for the data card. Tables are read in batches, so memory does not grow with the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow.compute as pc

from data_contracts import Artifact

NOT_DECLARED = "not declared"
MAX_ROWS = 20  # of a table in a card


@dataclass(frozen=True)
class SourceCounts:
    """What one source of the crawl contributed: pages, bytes of their bodies, declared licences."""

    pages: int
    bytes: int
    declared_licences: int


@dataclass(frozen=True)
class Robots:
    """Evidence of what robots.txt and the pages themselves allow, as value → pages."""

    verdicts: dict[str, int]
    meta: dict[str, int]
    headers: dict[str, int]


@dataclass
class Texts:
    """Documents of the training text by source, language and licence, and their UTF-8 bytes."""

    by_source: Counter[str] = field(default_factory=Counter)
    by_language: Counter[str] = field(default_factory=Counter)
    by_license: Counter[str] = field(default_factory=Counter)
    bytes: int = 0


def sources(raw_documents: Artifact) -> dict[str, SourceCounts]:
    """Count the pages of each source. Reads every body once, for its length.

    Args:
        raw_documents: The artifact of the crawl.

    Returns:
        The counts by name of the source, sorted by name.
    """
    pages: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    licensed: Counter[str] = Counter()
    columns = ["source", "body", "license"]
    for batch in raw_documents.batches("documents", columns, batch_size=256):
        names = batch.column("source").to_pylist()
        lengths = pc.binary_length(batch.column("body")).to_pylist()
        licences = batch.column("license").to_pylist()
        for name, length, licence in zip(names, lengths, licences, strict=True):
            pages[name] += 1
            sizes[name] += length
            licensed[name] += licence is not None
    found: dict[str, SourceCounts] = {}
    for name in sorted(pages):
        found[name] = SourceCounts(pages[name], sizes[name], licensed[name])
    return found


def robots(raw_documents: Artifact) -> Robots:
    """Count the evidence that crawl kept with every page.

    Args:
        raw_documents: The artifact of the crawl.
    """
    return Robots(
        verdicts=count(raw_documents, "documents", "robots"),
        meta=count(raw_documents, "documents", "meta_robots"),
        headers=count(raw_documents, "documents", "x_robots_tag"),
    )


def texts(training_documents: Artifact) -> Texts:
    """Count the documents on which the model is trained.

    Args:
        training_documents: The artifact of decontaminate.
    """
    counted = Texts()
    columns = ["source", "language", "license", "text"]
    for batch in training_documents.batches("documents", columns, batch_size=1024):
        counted.by_source.update(batch.column("source").to_pylist())
        counted.by_language.update(batch.column("language").to_pylist())
        for licence in batch.column("license").to_pylist():
            counted.by_license[licence or NOT_DECLARED] += 1
        lengths = pc.binary_length(batch.column("text"))
        counted.bytes += pc.sum(lengths).as_py() or 0
    return counted


def count(artifact: Artifact, table: str, column: str) -> dict[str, int]:
    """Count the rows of each value of a column. Nulls are left out.

    Args:
        artifact: The artifact.
        table: Name of one of its tables.
        column: Name of a column of texts.

    Returns:
        The count of each value, the largest first.
    """
    counted: Counter[str] = Counter()
    for batch in artifact.batches(table, [column]):
        present = batch.column(column).drop_null()
        counted.update(present.to_pylist())
    return ranked(counted)


def total(artifact: Artifact, table: str, column: str) -> int:
    """Return the sum of an integer column.

    Args:
        artifact: The artifact.
        table: Name of one of its tables.
        column: Name of the column.
    """
    found = 0
    for batch in artifact.batches(table, [column]):
        found += pc.sum(batch.column(column)).as_py() or 0
    return found


def distinct(artifact: Artifact, table: str, column: str) -> int:
    """Return how many different values a column has. Nulls are left out.

    Args:
        artifact: The artifact.
        table: Name of one of its tables.
        column: Name of a column of texts. Its values are kept in memory, so they should be few.
    """
    seen: set[str] = set()
    for batch in artifact.batches(table, [column]):
        present = batch.column(column).drop_null()
        seen.update(present.to_pylist())
    return len(seen)


def ranked(counted: Counter[str]) -> dict[str, int]:
    """Sort by count, largest first, then by name.

    Args:
        counted: How often each value occurs.
    """
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def shown(counted: dict[str, int], max_rows: int = MAX_ROWS) -> Sequence[tuple[str, int]]:
    """Return the first counts, and a last row with the sum of the others.

    Args:
        counted: The count of each value, the largest first.
        max_rows: How many counts to return as they are.
    """
    items = list(counted.items())
    rest = 0
    for _, value in items[max_rows:]:
        rest += value
    first = items[:max_rows]
    return [*first, ("all others", rest)] if rest else first
