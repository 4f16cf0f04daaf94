"""An executor whose workers have nothing of the driver but a pickled message.

Each shard runs in an interpreter of its own: `python -m tests.stages.execution.fresh` reads the
work and a shard from standard input, and writes the result or the error to standard output.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any

from stages.execution.shards import WorkerLost

REPOSITORY = Path(__file__).parents[3]


class PortablePickler(pickle.Pickler):
    """Refuses paths: they mean something on one machine only."""

    def reducer_override(self, value: Any) -> Any:
        assert not isinstance(value, PurePath), f"a message holds the path {value}"
        return NotImplemented


@dataclass
class FreshInterpreters:
    """Runs each shard in an interpreter of its own, one after the other.

    Attributes:
        home: The home and temporary folder of the interpreters.
        messages: What was sent.
    """

    home: Path
    in_flight: int = 3
    messages: list[bytes] = field(default_factory=list)

    @contextmanager
    def start(self, work: Callable[[Any], Any]) -> Iterator[_Sending]:
        yield _Sending(self, work, self.in_flight)


@dataclass(frozen=True)
class _Sending:
    executor: FreshInterpreters
    work: Callable[[Any], Any]
    in_flight: int

    def submit(self, shard: Any) -> _Running:
        message = BytesIO()
        PortablePickler(message).dump((self.work, shard))
        self.executor.messages.append(message.getvalue())
        home = str(self.executor.home)
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
        }
        ended = subprocess.run(
            [sys.executable, "-m", "tests.stages.execution.fresh"],
            input=message.getvalue(),
            stdout=subprocess.PIPE,
            cwd="/",
            env=environment | {"HOME": home, "TMPDIR": home, "GROUNDUP_CACHE": f"{home}/cache"},
            check=False,
        )
        return _Running(ended)


@dataclass(frozen=True)
class _Running:
    ended: subprocess.CompletedProcess[bytes]

    def result(self) -> Any:
        if self.ended.returncode:
            raise WorkerLost(f"ended with status {self.ended.returncode}", "look at its messages")
        kind, value = pickle.loads(self.ended.stdout)
        if kind == "error":
            raise value
        return value


def main() -> None:
    work, shard = pickle.load(sys.stdin.buffer)
    answer: tuple[str, Any]
    try:
        answer = ("result", work(shard))
    except Exception as error:
        answer = ("error", error)
    pickle.dump(answer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
