"""Politeness: what waits at each host, and when it may be asked again."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Set
from dataclasses import dataclass, field

from stages.crawl.crawl_rules import CrawlRules
from stages.crawl.fetch import FetchError
from stages.crawl.robots import NO_RULES, RobotsRules
from stages.crawl.urls import origin

FAILURES_TO_SKIP = 8  # in a row
FIRST_WAIT = 1.0  # seconds, doubled with every failure
LONGEST_WAIT = 300.0


@dataclass
class Host:
    """One origin.

    Attributes:
        origin: Scheme, host and port.
        delay: Pause between two requests, in seconds.
        at_once: Requests under way, at most.
        rules_until: The monotonic time at which robots.txt is due again.
        waiting: Heap of the addresses to ask for: depth, number, address.
        scheduled: Whether it is among the hosts with something to do.
        active: Requests under way.
        asked: Addresses that were asked for.
        ready_at: The monotonic time from which it may be asked again.
        failures: Failures in a row.
        rules: Its robots.txt.
        reading_rules: Whether robots.txt is being fetched.
    """

    origin: str
    delay: float
    at_once: int
    rules_until: float
    waiting: list[tuple[int, int, str]] = field(default_factory=list)
    scheduled: bool = False
    active: int = 0
    asked: int = 0
    ready_at: float = 0.0
    failures: int = 0
    rules: RobotsRules = NO_RULES
    reading_rules: bool = False

    def put(self, depth: int, number: int, url: str) -> None:
        """Let an address wait; number says when it became known."""
        heapq.heappush(self.waiting, (depth, number, url))

    def take(self) -> str:
        """Take the address nearest to a seed; the longest known among equals."""
        return heapq.heappop(self.waiting)[2]

    @property
    def skipped(self) -> bool:
        """Whether the host is given up."""
        return self.failures >= FAILURES_TO_SKIP

    def refusal(self, url: str) -> FetchError | None:
        """Return why `url` is not to be asked, as far as that is known without asking."""
        if self.rules.refusal is not None:
            return FetchError(*self.rules.refusal)
        if not self.rules.allows(url):
            return FetchError("robots", "robots.txt disallows it")
        return self.given_up() if self.skipped else None

    def given_up(self) -> FetchError:
        """Return the error of an address that is not asked for because the host is given up."""
        detail = f"{self.origin} failed {self.failures} times in a row"
        return FetchError("host_skipped", detail)

    def asked_now(self, now: float) -> None:
        """Note that a request is made; the next is due a pause later."""
        pause = max(self.delay, self.rules.delay)
        self.ready_at = max(self.ready_at, now + pause)

    async def turn(self) -> None:
        """Wait until the host may be asked again. The caller then has the turn, and must ask."""
        wait = self.ready_at - time.monotonic()
        while wait > 0:
            await asyncio.sleep(wait)
            wait = self.ready_at - time.monotonic()
        self.asked_now(time.monotonic())

    def answered(self) -> None:
        self.failures = 0

    def failed(self, now: float, wait: float | None) -> None:
        """Back off for as long as the host asks, else twice as long as the last time.

        A host that asks for more than `LONGEST_WAIT` is given up.
        """
        seconds = FIRST_WAIT * 2**self.failures if wait is None else wait
        self.failures += 1
        if seconds > LONGEST_WAIT:
            self.failures = FAILURES_TO_SKIP
        if self.skipped:
            self.ready_at = now
        else:
            self.ready_at = max(self.ready_at, now + seconds)


class Hosts:
    """The hosts of a crawl, and which of them may be asked next."""

    def __init__(self, rules: CrawlRules):
        self._rules = rules
        self._by_origin: dict[str, Host] = {}
        # Heap of the hosts with something to do, by the time from which they may be asked.
        self._ready: list[tuple[float, str]] = []

    def of(self, url: str) -> Host:
        """Return the host of an address."""
        name = origin(url)
        if name not in self._by_origin:
            rules_until = 0.0 if self._rules.respect_robots else math.inf
            self._by_origin[name] = Host(
                name,
                self._rules.delay,
                self._rules.at_once,
                rules_until,
            )
        return self._by_origin[name]

    @property
    def scheduled(self) -> bool:
        """Whether any host has something to do."""
        return bool(self._ready)

    @property
    def soonest(self) -> float:
        """The monotonic time from which a host may be asked; infinity if none is scheduled."""
        return self._ready[0][0] if self._ready else math.inf

    def next(self) -> Host:
        """Take the host that may be asked first."""
        _, name = heapq.heappop(self._ready)
        host = self._by_origin[name]
        host.scheduled = False
        return host

    def schedule(self, host: Host, taken: Set[str]) -> None:
        """Put a host among those with something to do, if it may be asked.

        Args:
            host: The host.
            taken: Addresses that were asked for, or are being asked for.
        """
        while host.waiting and host.waiting[0][2] in taken:
            host.take()
        is_busy = host.scheduled or host.reading_rules or host.active >= host.at_once
        if host.waiting and not is_busy:
            host.scheduled = True
            heapq.heappush(self._ready, (host.ready_at, host.origin))

    def full(self, taken: Set[str]) -> list[str]:
        """Return the hosts that have addresses left and may not be asked for more pages.

        Args:
            taken: Addresses that were asked for.
        """
        full = []
        for host in self._by_origin.values():
            if host.asked < self._rules.max_pages_per_host:
                continue
            left = {url for _, _, url in host.waiting} - taken
            if left:
                full.append(host.origin)
        return full
