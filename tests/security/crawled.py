"""Runs crawl in a separate process and measures it.

`python -m tests.security.crawled STORE SOURCE` prints one line of JSON: rows by table, reasons of
failures, notes, the error if there was one, and the peak memory of this process and of those that
it started.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import stages
from data_contracts import GroundupError, Store
from stages.run import run_stage


class Crawled(NamedTuple):
    """The result of a crawl. peak: the most megabytes of all processes together."""

    documents: int
    rejected: dict[str, int]
    notes: list[str]
    error: str
    peak: float


def crawled(store: Path, **source: Any) -> Crawled:
    """Crawl one source in a separate process."""
    command = [sys.executable, "-m", "tests.security.crawled", str(store), json.dumps(source)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    return Crawled(**json.loads(done.stdout.splitlines()[-1]))


class _Peaks:
    """The peak memory of this process and of each that it starts.

    The kernel keeps it as long as they live. The peak of children in getrusage is of no use here: a
    process inherits the peak of the one that started it. Between fork and exec, a child shows the
    memory of its parent, which would count twice: a child counts from its exec on.
    """

    def __init__(self) -> None:
        self._of: dict[int, float] = {}
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()

    def _look(self) -> None:
        own = os.getpid()
        own_command = _command(own)
        while not self._over.wait(0.005):
            with suppress(OSError, LookupError):  # the process has just ended
                children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
                for process in (own, *map(int, children)):
                    if process == own or _command(process) != own_command:
                        self._of[process] = max(self._of.get(process, 0), _peak(process))

    def total(self) -> float:
        """Return the megabytes that all processes would use if they were at their peaks at once."""
        self._over.set()
        self._watch.join()
        return sum(self._of.values())


def _peak(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _command(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


def _crawl(store: str, source: str) -> Crawled:
    peaks = _Peaks()
    row = stages.stage("crawl")
    config = row.config_class.parse({"sources": [json.loads(source)]}, "crawl")
    try:
        made, _ = run_stage(Store(store), row, config, {})
    except GroundupError as error:
        return Crawled(0, {}, [], str(error), peaks.total())
    facts = made.manifest.facts
    return Crawled(made.rows("documents"), facts["rejected"], facts["notes"], "", peaks.total())


if __name__ == "__main__":
    print(json.dumps(_crawl(*sys.argv[1:])._asdict()))
