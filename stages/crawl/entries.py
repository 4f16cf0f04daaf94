"""Entries of the journal: what becomes of an address, by the response or the error that it gave."""

from __future__ import annotations

from stages.crawl.archive import ArchivePosition
from stages.crawl.crawl_rules import CrawlRules
from stages.crawl.fetch import FetchError, HttpResponse, redirect_target
from stages.crawl.journal import JournalEntry
from stages.crawl.page import WANTED, PageFacts, UnreadablePageError
from stages.crawl.page import read as read_page


def check(response: HttpResponse, rules: CrawlRules) -> None:
    """Accept a response as a page.

    Raises:
        FetchError: It gives no document.
    """
    if response.status != 200:
        detail = f"{response.status} {response.phrase}".strip()
        raise FetchError("http_status", detail, response.status)
    if response.media_type not in WANTED:
        raise FetchError("media_type", response.media_type[:100], 200)
    if not response.body.strip():
        raise FetchError("empty", "the body is empty", 200)
    refusal = rules.refused(response)
    if refusal:
        raise FetchError("empty", refusal, 200)


def facts_of(response: HttpResponse) -> PageFacts:
    """Return what a page states.

    Raises:
        FetchError: It cannot be parsed.
    """
    try:
        return read_page(response)
    except UnreadablePageError as error:
        raise FetchError("unreadable_row", str(error), 200) from None


def moved(response: HttpResponse, rules: CrawlRules) -> JournalEntry:
    """Return the entry of an address that redirects.

    Raises:
        FetchError: The redirect may not be followed.
    """
    to = redirect_target(response)
    if not rules.within(to):
        detail = f"to {to}, which is out of scope"
        raise FetchError("redirect_refused", detail, response.status)
    return {"kind": "moved", "url": response.url, "to": to}


def of_page(
    response: HttpResponse,
    facts: PageFacts,
    robots: str,
    record: ArchivePosition,
    links: list[str],
) -> JournalEntry:
    """Return the entry of a page.

    Args:
        response: The page.
        facts: What it states.
        robots: What robots.txt says of it.
        record: Where it is in the archive.
        links: Its links within the scope of the crawl.
    """
    row = response.evidence(facts.meta_robots, facts.license)
    row["robots"] = robots
    fetch = response.fetch
    fetch["fetched_at"] = response.began.isoformat()
    return {
        "kind": "page",
        "url": response.url,
        "row": row,
        "fetch": fetch,
        "record": list(record),
        "links": links,
        "bytes": len(response.body),
    }


def opted_out(response: HttpResponse, words: str, links: list[str]) -> JournalEntry:
    """Return the entry of a page that asks, in these words, not to be used. Links are followed."""
    error = FetchError("robots", f"the page asks not to be used: {words}", 200)
    entry = failed(response.url, error)
    entry["links"] = links
    return entry


def failed(url: str, error: FetchError) -> JournalEntry:
    """Return the entry of an address that gave no document."""
    return {
        "kind": "failed",
        "url": url,
        "reason": error.reason,
        "detail": error.detail,
        "status": error.status,
    }
