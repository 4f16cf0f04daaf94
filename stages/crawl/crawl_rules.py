"""What bounds a crawl, and how far an address is from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stages.crawl.fetch import HttpResponse


@dataclass(frozen=True)
class CrawlRules:
    """What bounds a crawl.

    Attributes:
        within: Whether a canonical address is in scope.
        max_pages: Pages of the whole crawl.
        max_pages_per_host: Pages of one host.
        max_depth: Links from a seed.
        page_bytes: Limit of one body.
        seconds: Limit of the whole crawl.
        delay: Pause between two requests to one host, in seconds.
        at_once: Requests under way at one host.
        connections: Requests under way in all.
        respect_robots: Whether robots.txt is read and kept.
        honour_opt_out: Whether pages that ask not to be used are left out.
        refused: Why a response is no document, or None.
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
    refused: Callable[[HttpResponse], str | None] = lambda response: None


@dataclass
class Distance:
    """How far an address is from a seed.

    Attributes:
        depth: Links followed.
        hops: Redirects since the last link.
    """

    depth: int
    hops: int
