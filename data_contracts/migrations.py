"""The migrations from one major version of a contract to the next; `upgrades.py` applies them.

A minor version needs no entry here: columns that it added are filled with null, so they must be
nullable (`compatibility.py` refuses anything else). A major version of a table needs a function,
registered under (artifact_type, table, old major); a test runs it on a stored artifact of the old
version. A table that a major version splits off from another one is registered as `SplitOff`.
Bundles of files are not migrated: they are built again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

Migration = Callable[[pa.RecordBatch], pa.RecordBatch]


@dataclass(frozen=True)
class SplitOff:
    """A table that a major version introduced, made from a table that the version before had.

    Attributes:
        table: The table that its rows are made from.
        rows: The function that makes them.
    """

    table: str
    rows: Migration


def _fetches_of_documents(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the fetches that raw_documents 1.x kept in documents. Local files have none."""
    columns = ["id", "fetched_at", "etag", "last_modified", "warc_file", "warc_offset"]
    return batch.select(columns).filter(pc.is_valid(batch["fetched_at"]))


def _unchanged(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


MAJOR_STEPS: dict[tuple[str, str, int], Migration | SplitOff] = {
    ("raw_documents", "documents", 1): _unchanged,  # dropped columns are left out
    ("raw_documents", "failures", 1): _unchanged,
    ("raw_documents", "fetches", 1): SplitOff("documents", _fetches_of_documents),
}
