"""A crawl over HTTP, from the settings of a source to its rows."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from data_contracts import Draft, InputError
from stages.config import any_found
from stages.crawl import pydoc_source
from stages.crawl.archive import Archive, Record
from stages.crawl.config import PydocSource, WebSource
from stages.crawl.crawler import MAX_HOPS, Crawler, Rules
from stages.crawl.fetch import WebFetcher
from stages.crawl.journal import Entry, Journal
from stages.crawl.robots import AGENT
from stages.crawl.rows import Rows, document_id
from stages.crawl.urls import canonical, host_and_port, origin
from stages.documentation_server import is_documentation_server
from stages.execution.shards import cores
from stages.report import Report

MAX_SERVERS = 4  # more only load the same modules once more each


def collect(
    source: WebSource | PydocSource,
    out: Draft,
    rows: Rows,
    report: Report,
    stop: Callable[[], bool],
) -> list[str]:
    """Crawl `source` into `rows` and the archive of `out`; returns notes for the reader of the artifact.

    Raises InputError if no seed can be had or most addresses are lost with their host, Interrupted at a wish to stop.
    """
    agent = f"{AGENT}/{version('groundup')}" + (
        f" (+{source.contact})" if isinstance(source, WebSource) and source.contact else ""
    )
    journal, archive = (
        Journal(out.scratch / f"{source.name}.jsonl"),
        Archive(out.scratch, source.name, agent),
    )
    try:
        if isinstance(source, WebSource):
            seeds, crawler = asyncio.run(_crawl_web(source, agent, journal, archive, report, stop))
        else:
            seeds, crawler = asyncio.run(
                _crawl_pydoc(source, agent, journal, archive, report, stop)
            )
        notes = _judge_seeds(source.name, seeds, crawler, journal, report)
        notes += _judge_hosts(source.name, crawler, journal, report)
        if crawler.limits:
            notes.append(
                f"{source.name}: cut short by {crawler.limits}; {crawler.left:,} known addresses were not asked"
            )
        _write(source.name, crawler, journal, archive, rows)
        for path in archive.paths.values():
            _link(path, out.path(f"warc/{path.name}"))
        if (
            not crawler.pages
        ):  # the stage refuses an empty crawl, and a rerun must ask again, not repeat the failures
            journal.discard()
        return notes
    finally:
        archive.close()
        journal.close()


async def _crawl_web(
    source: WebSource,
    agent: str,
    journal: Journal,
    archive: Archive,
    report: Report,
    stop: Callable[[], bool],
) -> tuple[list[str], Crawler]:
    seeds = sorted({canonical(seed) for seed in source.seeds})
    hosts = {
        f"{scheme}://{urlsplit(seed).netloc}/" for seed in seeds for scheme in ("http", "https")
    }  # sites move to https
    prefixes = tuple({canonical(prefix) for prefix in source.scope} or hosts)
    start = frozenset(seeds)
    rules = Rules(
        within=lambda url: not is_documentation_server(url)
        and (url in start or (url.startswith(prefixes) and not any_found(source.skip, url))),
        max_pages=source.max_pages, max_pages_per_host=source.max_pages_per_host, max_depth=source.max_depth,
        page_bytes=source.max_page_bytes, seconds=source.max_minutes * 60, delay=source.delay_seconds, at_once=source.per_host,
        connections=source.connections, respect_robots=source.respect_robots, honour_opt_out=source.honour_opt_out,
    )  # fmt: skip
    if not source.contact:
        report.note(
            f"{source.name}: crawling without a contact; set one, so that site owners can reach you"
        )
    allowed = {host_and_port(canonical(address)) for address in source.allow_origins}
    async with WebFetcher(agent, source.timeout_seconds, source.connections, allowed) as fetcher:
        crawler = Crawler(rules, fetcher, journal, archive, report, stop)
        await crawler.run(seeds)
    return seeds, crawler


async def _crawl_pydoc(
    source: PydocSource,
    agent: str,
    journal: Journal,
    archive: Archive,
    report: Report,
    stop: Callable[[], bool],
) -> tuple[list[str], Crawler]:
    servers = source.servers or min(cores(), MAX_SERVERS)
    rules = Rules(
        within=pydoc_source.Scope(source), max_pages=source.max_pages, max_pages_per_host=source.max_pages, max_depth=source.max_depth,
        page_bytes=source.max_page_bytes, seconds=source.max_minutes * 60, delay=0, at_once=servers, connections=servers,
        respect_robots=True, honour_opt_out=True, refused=pydoc_source.refusal,
    )  # fmt: skip
    async with pydoc_source.PydocFetcher(agent, source.timeout_seconds, servers) as fetcher:
        crawler = Crawler(rules, fetcher, journal, archive, report, stop)
        await crawler.run(pydoc_source.SEEDS)
    return pydoc_source.SEEDS, crawler


def _judge_seeds(
    name: str, seeds: Sequence[str], crawler: Crawler, journal: Journal, report: Report
) -> list[str]:
    """Notes on seeds that failed. Raises InputError if all did; the journal is discarded then, so that a rerun asks again."""
    entries = {seed: journal.at(crawler.settled[seed]) for seed in seeds if seed in crawler.settled}
    failed = {
        seed: f"{entry['reason']}: {entry['detail']}"
        for seed, entry in entries.items()
        if entry["kind"] == "failed"
    }
    if len(failed) == len(seeds):
        journal.discard()
        why = "; ".join(f"{seed}: {detail}" for seed, detail in failed.items())
        fix = f"correct the seeds of crawl.sources {name}"
        if any(detail.startswith("address_refused") for detail in failed.values()):
            fix += f", or if that machine is meant, allow it by name: allow_origins: [{origin(seeds[0])}]"
        raise InputError(f"crawl source {name}", f"none of its seeds can be had: {why}", fix)
    notes = [f"{name}: the seed {seed} failed, {detail}" for seed, detail in failed.items()]
    for note in notes:
        report.note(note)
    return notes


def _judge_hosts(name: str, crawler: Crawler, journal: Journal, report: Report) -> list[str]:
    """A note on the hosts that were given up. Raises InputError if most addresses are lost with them; a rerun asks for those again."""
    if not crawler.lost:
        return []
    hosts = ", ".join(
        f"{host} ({count:,} addresses not asked)" for host, count in crawler.lost.most_common()
    )
    if 2 * crawler.lost.total() > len(crawler.known):
        journal.forget(
            lambda entry: entry["kind"] == "failed" and origin(entry["url"]) in crawler.lost
        )
        why = f"most of its {len(crawler.known):,} known addresses are lost with hosts that do not answer: {hosts}"
        fix = f"run the same command again when they do: it keeps the {crawler.pages:,} pages it has; or leave those hosts out of its scope"
        raise InputError(f"crawl source {name}", why, fix)
    note = f"{name}: gave up hosts that do not answer: {hosts}"
    report.note(note)
    return [note]


def _write(name: str, crawler: Crawler, journal: Journal, archive: Archive, rows: Rows) -> None:
    """Rows from the journal, in order of id, whatever the order of arrival. One read of the archive per page."""
    moved: dict[str, str] = {}
    failed: dict[str, Entry] = {}
    pages: list[tuple[str, str, int]] = []
    for url, offset in crawler.settled.items():
        entry = journal.at(offset)
        if entry["kind"] == "page":
            pages.append((document_id(name, url), url, offset))
        elif entry["kind"] == "moved":
            moved[url] = entry["to"]
        else:
            failed[url] = entry
    fetched = {url for _, url, _ in pages}
    ways = _ways(
        moved,
        {url: place.hops for url, place in crawler.known.items() if place.hops and url in fetched},
    )
    for _, url, offset in sorted(pages):
        entry, place = journal.at(offset), crawler.known[url]
        record = Record(*entry["record"])
        where = {
            "warc_file": f"warc/{archive.path(record.file).name}",
            "warc_offset": record.offset,
        }
        fetch = (
            entry["fetch"]
            | {"fetched_at": datetime.fromisoformat(entry["fetch"]["fetched_at"])}
            | where
        )
        rows.document(
            name,
            url,
            archive.body(record),
            depth=place.depth,
            redirects=ways.get(url, ()),
            fetch=fetch,
            **entry["row"],
        )
    for url in sorted(failed.keys() | moved.keys()):
        end = _end(url, moved)
        if end in fetched:
            continue
        cause = failed.get(end)
        depth = crawler.known[url].depth
        if cause is None:
            if end in crawler.known and end not in moved:
                rows.failure(
                    name,
                    url,
                    "redirect_refused",
                    f"leads to {end}, which was not asked: {crawler.limits}",
                    depth=depth,
                )
            else:
                rows.failure(
                    name,
                    url,
                    "too_many_redirects",
                    f"more than {MAX_HOPS} redirects, or a circle",
                    depth=depth,
                )
        else:
            detail = cause["detail"] if end == url else f"leads to {end}: {cause['detail']}"
            rows.failure(
                name, url, cause["reason"], detail, depth=depth, status=cause.get("status")
            )


def _ways(moved: dict[str, str], hops: dict[str, int]) -> dict[str, tuple[str, ...]]:
    """For every page that only redirects lead to (after so many hops): the shortest way, the first in the alphabet among equals."""
    ways: dict[str, tuple[str, ...]] = {}
    for start in sorted(moved):
        way, url = [start], moved[start]
        while url in moved and len(way) < MAX_HOPS:
            way.append(url)
            url = moved[url]
        if hops.get(url) == len(way):
            ways.setdefault(url, tuple(way))
    return ways


def _end(url: str, moved: dict[str, str]) -> str:
    seen = set()
    while url in moved and url not in seen:
        seen.add(url)
        url = moved[url]
    return url


def _link(path: Path, to: Path) -> None:
    """The archive stays in scratch until the commit, so that a kill before it loses nothing."""
    try:
        os.link(path, to)
    except OSError:  # a filesystem without hard links
        shutil.copyfile(path, to)
