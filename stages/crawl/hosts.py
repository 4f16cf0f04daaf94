"""Politeness: what waits at each host, and when it may be asked again."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from stages.crawl.robots import Rules

FAILURES_TO_SKIP = 8  # in a row
FIRST_WAIT = 1.0  # seconds, doubled with every failure
LONGEST_WAIT = 300.0


@dataclass
class Host:
    """One origin. `ready_at` is the monotonic time from which it may be asked again."""

    origin: str
    delay: float
    at_once: int
    waiting: list[tuple[int, int, str]] = field(default_factory=list)
    scheduled: bool = False
    active: int = 0
    asked: int = 0
    ready_at: float = 0.0
    failures: int = 0
    rules: Rules | None = None
    rules_read_at: float = 0.0

    def put(self, depth: int, number: int, url: str) -> None:
        heapq.heappush(self.waiting, (depth, number, url))

    def take(self) -> str:
        """The address nearest to a seed; the longest known among equals."""
        return heapq.heappop(self.waiting)[2]

    @property
    def skipped(self) -> bool:
        return self.failures >= FAILURES_TO_SKIP

    def started(self, now: float) -> None:
        self.active += 1
        self.ready_at = max(self.ready_at, now + max(self.delay, self.rules.delay if self.rules else 0.0))

    def answered(self) -> None:
        self.failures = 0

    def failed(self, now: float, wait: float | None) -> None:
        """Back off: for as long as the host asks, else twice as long as the last time. One that asks for too long is given up."""
        seconds = FIRST_WAIT * 2**self.failures if wait is None else wait
        self.failures = FAILURES_TO_SKIP if seconds > LONGEST_WAIT else self.failures + 1
        self.ready_at = now if self.skipped else max(self.ready_at, now + seconds)
