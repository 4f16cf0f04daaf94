"""What bounds a crawl, and how far an address is from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stages.crawl.fetch import Answer


@dataclass(frozen=True)
class Rules:
    """What bounds a crawl.

    within: Whether a canonical address is in scope.
    page_bytes: Limit of one body.
    seconds: Limit of the whole crawl.
    delay, at_once: Pause in seconds, and requests under way, per host.
    refused: Why an answer is no document, or None.
    """

    within: Callable[[str], bool]
    max_pages: int
    max_pages_per_host: int
    max_depth: int
    page_bytes: int
    seconds: float
    delay: float
    at_once: int
    connections: int
    respect_robots: bool
    honour_opt_out: bool
    refused: Callable[[Answer], str | None] = lambda answer: None


@dataclass
class Distance:
    """How far an address is from a seed: links followed, and redirects since the last link."""

    depth: int
    hops: int
