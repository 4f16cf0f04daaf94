"""What the check at publish costs beside the bare reading of the same files by pyarrow.

    python -m tests.bench.io_bench [--rows 1000000]

One JSON line a table; seconds are the best of three.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts import check, current
from data_contracts.store.writer import TableWriter
from tests.bench import machine

ROWS = 1_000_000


def metrics(rows: int) -> pa.Table:
    """Numbers only: the simplest table there is."""
    steps = pa.array(range(rows), pa.int64())
    loss = pa.array([3.0] * rows, pa.float64())
    columns = {"step": steps, "tokens": steps, "loss": loss, "skipped": pa.array([False] * rows)}
    return _filled("checkpoint", "metrics", columns)


def documents(rows: int) -> pa.Table:
    """Ids to match and to find twice, addresses, texts of 2 kB."""
    ids = pa.array([hashlib.md5(str(n).encode()).hexdigest() for n in range(rows)])
    texts = [f"{n} " + "words of a text " * 125 for n in range(rows)]
    columns = {
        "id": ids,
        "url": pa.array([f"http://example.org/{n}" for n in range(rows)]),
        "source": pa.array(["web"] * rows),
        "text": pa.array(texts, pa.large_string()),
        "language": pa.array(["en"] * rows),
        "cluster": ids,
        "cluster_size": pa.array([1] * rows, pa.int32()),
    }
    return _filled("unique_documents", "train", columns)


def tokens(rows: int) -> pa.Table:
    """500 token ids a row."""
    offsets = pa.array(range(0, 500 * rows + 1, 500), pa.int32())
    columns = {
        "document": pa.array(["0" * 32] * rows),
        "part": pa.array([0] * rows, pa.int32()),
        "tokens": pa.ListArray.from_arrays(offsets, pa.array([7] * (500 * rows), pa.int32())),
        "bytes": pa.array([2000] * rows, pa.int64()),
    }
    return _filled("token_shards", "train", columns)


def _filled(contract: str, name: str, columns: dict[str, pa.Array]) -> pa.Table:
    """The table of a contract; columns that are not given are empty."""
    schema = current(contract).arrow_schema(name)
    rows = len(next(iter(columns.values())))
    arrays = []
    for field in schema:
        given = columns.get(field.name)
        arrays.append(pa.nulls(rows, field.type) if given is None else given.cast(field.type))
    return pa.table(arrays, schema=schema)


def seconds(work: Callable[[], object], times: int = 3) -> float:
    """The best of a few: others may use the machine."""
    best = float("inf")
    for _ in range(times):
        begun = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begun)
    return best


def read(path: Path) -> None:
    """By pyarrow alone, in batches of the size that the check takes."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for _ in file.iter_batches(check.BATCH_ROWS):
            pass


def sha256(path: Path) -> str:
    """What the manifest keeps of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compare(contract: str, name: str, made: pa.Table) -> dict[str, object]:
    """Seconds to write, read, check and hash a table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name, "part-00000.parquet")
        begun = time.perf_counter()
        with TableWriter(current(contract), name, path) as writer:
            writer.write(made)
        wrote = time.perf_counter() - begun
        bare = seconds(lambda: read(path))
        checked = seconds(lambda: check.table(current(contract), name, Path(folder)))
        hashed = seconds(lambda: sha256(path))
    return {
        "bench": "publish check",
        "table": f"{contract}.{name}",
        "rows": made.num_rows,
        "MB": made.nbytes / 1e6,
        "write_s": wrote,
        "pyarrow_read_s": bare,
        "check_s": checked,
        "sha256_s": hashed,
        "million_rows_per_s": made.num_rows / checked / 1e6,
        "MB_per_s": made.nbytes / checked / 1e6,
        "check_over_read": checked / bare,
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS, help="of numbers; fewer of documents")
    rows = parser.parse_args(arguments).rows
    machine.report(compare("checkpoint", "metrics", metrics(rows)))
    machine.report(compare("unique_documents", "train", documents(max(1, rows // 10))))
    machine.report(compare("token_shards", "train", tokens(max(1, rows // 50))))


if __name__ == "__main__":
    main()
