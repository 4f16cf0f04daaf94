"""Rows of a finished crawl, from its journal and its archive."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from stages.crawl.archive import Archive, ArchivePosition
from stages.crawl.crawler import MAX_HOPS, Crawler
from stages.crawl.journal import Journal, JournalEntry
from stages.crawl.rows import Rows, document_id


def write_rows(name: str, crawler: Crawler, journal: Journal, archive: Archive, rows: Rows) -> None:
    """Write documents in order of id and failures in order of address.

    The order of arrival does not matter. Each page is read from the archive once.

    Args:
        name: Name of the source.
        crawler: The finished crawl.
        journal: What became of each address.
        archive: The pages.
        rows: Receives documents and failures.
    """
    moved: dict[str, str] = {}
    failed: dict[str, JournalEntry] = {}
    pages: list[tuple[str, str, int]] = []
    for url, offset in crawler.entry_offsets.items():
        entry = journal.at(offset)
        if entry["kind"] == "page":
            pages.append((document_id(name, url), url, offset))
        elif entry["kind"] == "moved":
            moved[url] = entry["to"]
        else:
            failed[url] = entry
    fetched = {url for _, url, _ in pages}
    hops = {}
    for url in fetched:
        if crawler.known[url].hops:
            hops[url] = crawler.known[url].hops
    ways = _ways(moved, hops)
    for _, url, offset in sorted(pages):
        entry = journal.at(offset)
        record = ArchivePosition(*entry["record"])
        rows.document(
            name,
            url,
            archive.body(record),
            depth=crawler.known[url].depth,
            redirects=ways.get(url, ()),
            fetch=_fetch(entry, record, archive),
            **entry["row"],
        )
    for url in sorted(failed.keys() | moved.keys()):
        end = _end_of_redirects(url, moved)
        if end not in fetched:
            _write_failure(name, url, end, failed.get(end), crawler, moved, rows)


def _fetch(entry: JournalEntry, record: ArchivePosition, archive: Archive) -> dict[str, Any]:
    """Return the columns of `fetches` for a page, with its position in the archive."""
    fetch = dict(entry["fetch"])
    fetch["fetched_at"] = datetime.fromisoformat(fetch["fetched_at"])
    fetch["warc_file"] = f"warc/{archive.path(record.file).name}"
    fetch["warc_offset"] = record.offset
    return fetch


def _write_failure(
    name: str,
    url: str,
    end: str,
    cause: JournalEntry | None,
    crawler: Crawler,
    moved: dict[str, str],
    rows: Rows,
) -> None:
    """Write the failure of an address.

    Args:
        name: Name of the source.
        url: The address.
        end: Where its redirects lead.
        cause: The failure of `end`, if it was asked for.
        crawler: The finished crawl.
        moved: For each address that redirects, where it leads.
        rows: Receives the failure.
    """
    depth = crawler.known[url].depth
    if cause is not None:
        detail = cause["detail"]
        if end != url:
            detail = f"leads to {end}: {detail}"
        status = cause.get("status")
        rows.failure(name, url, cause["reason"], detail, depth=depth, status=status)
    elif end in crawler.known and end not in moved:
        detail = f"leads to {end}, which was not asked: {crawler.limits}"
        rows.failure(name, url, "redirect_refused", detail, depth=depth)
    else:
        detail = f"more than {MAX_HOPS} redirects, or a circle"
        rows.failure(name, url, "too_many_redirects", detail, depth=depth)


def _ways(moved: dict[str, str], hops: dict[str, int]) -> dict[str, tuple[str, ...]]:
    """Return the redirects that lead to each page that no link leads to.

    Args:
        moved: For each address that redirects, where it leads.
        hops: The number of redirects to each such page.

    Returns:
        For each page its shortest way; of several the first in the alphabet.
    """
    ways: dict[str, tuple[str, ...]] = {}
    for start in sorted(moved):
        way = [start]
        url = moved[start]
        while url in moved and len(way) < MAX_HOPS:
            way.append(url)
            url = moved[url]
        if hops.get(url) == len(way):
            ways.setdefault(url, tuple(way))
    return ways


def _end_of_redirects(url: str, moved: dict[str, str]) -> str:
    """Return where the redirects from `url` end; in a circle, some address of it."""
    seen = set()
    while url in moved and url not in seen:
        seen.add(url)
        url = moved[url]
    return url
