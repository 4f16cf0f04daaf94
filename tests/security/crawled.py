"""Runs crawl in a process of its own and tells what it took: `python -m tests.security.crawled STORE SOURCE`.

Prints one line of JSON: rows by table, reasons of failures, notes, the error if there was one, and the peaks of memory of this
process and of the largest that it started.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import stages
from data_contracts import GroundupError, Store
from flows.step import run_stage

MEGABYTE = 1024 if sys.platform.startswith("linux") else 1 << 20  # in units of ru_maxrss


class Crawled(NamedTuple):
    """What came of a crawl. peak: megabytes of both processes together, at most."""

    documents: int
    rejected: dict[str, int]
    notes: list[str]
    error: str
    peak: float


def crawled(store: Path, **source: Any) -> Crawled:
    """Crawl one source in a process of its own."""
    command = [sys.executable, "-m", "tests.security.crawled", str(store), json.dumps(source)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    return Crawled(**json.loads(done.stdout.splitlines()[-1]))


def _peak() -> float:
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(who).ru_maxrss for who in whose) / MEGABYTE


def _crawl(store: str, source: str) -> Crawled:
    row = stages.stage("crawl")
    config = row.config_class.parse({"sources": [json.loads(source)]}, "crawl")
    try:
        made, _ = run_stage(Store(store), row, config, {})
    except GroundupError as error:
        return Crawled(0, {}, [], str(error), _peak())
    facts = made.manifest.facts
    return Crawled(made.rows("documents"), facts["rejected"], facts["notes"], "", _peak())


if __name__ == "__main__":
    print(json.dumps(_crawl(*sys.argv[1:])._asdict()))
