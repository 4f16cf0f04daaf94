"""A crawl over HTTP, from the settings of a source to its rows."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from data_contracts import Draft, InputError
from stages.config import any_found
from stages.crawl import pydoc_source
from stages.crawl.archive import Archive
from stages.crawl.config import PydocSource, WebSource
from stages.crawl.crawl_rows import write_rows
from stages.crawl.crawl_rules import CrawlRules
from stages.crawl.crawler import Crawler
from stages.crawl.fetch import WebFetcher
from stages.crawl.journal import Journal
from stages.crawl.robots import AGENT
from stages.crawl.rows import Rows
from stages.crawl.urls import canonical, host_and_port, origin
from stages.documentation_server import is_documentation_server
from stages.execution.cores import cores
from stages.report import Report

MAX_SERVERS = 4  # each further server loads the same modules again


def collect(
    source: WebSource | PydocSource,
    out: Draft,
    rows: Rows,
    report: Report,
    stop: Callable[[], bool],
) -> list[str]:
    """Crawl `source` into `rows` and the archive of `out`.

    Returns:
        Notes for the reader of the artifact.

    Raises:
        InputError: No seed gives a page, or most addresses are lost with hosts that are given up.
        Interrupted: A signal asked to stop.
    """
    agent = f"{AGENT}/{version('groundup')}"
    if isinstance(source, WebSource) and source.contact:
        agent += f" (+{source.contact})"
    journal = Journal(out.scratch / f"{source.name}.jsonl")
    archive = Archive(out.scratch, source.name, agent)
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
                f"{source.name}: cut short by {crawler.limits};"
                f" {crawler.left:,} known addresses were not asked"
            )
        write_rows(source.name, crawler, journal, archive, rows)
        for path in archive.paths.values():
            _link(path, out.path(f"warc/{path.name}"))
        # The stage refuses an empty crawl. A rerun must then ask again, not repeat the failures.
        if not crawler.pages:
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
    names = {urlsplit(seed).netloc for seed in seeds}
    hosts = {f"http://{name}/" for name in names} | {f"https://{name}/" for name in names}
    prefixes = tuple({canonical(prefix) for prefix in source.scope} or hosts)
    start = frozenset(seeds)

    def is_within(url: str) -> bool:
        if is_documentation_server(url):
            return False
        return url in start or (url.startswith(prefixes) and not any_found(source.skip, url))

    rules = CrawlRules(
        within=is_within,
        max_pages=source.limits.max_pages,
        max_pages_per_host=source.limits.max_pages_per_host,
        max_depth=source.limits.max_depth,
        page_bytes=source.limits.max_page_bytes,
        seconds=source.limits.max_minutes * 60,
        delay=source.pace.delay_seconds,
        at_once=source.pace.per_host,
        connections=source.pace.connections,
        respect_robots=source.respect_robots,
        honour_opt_out=source.honour_opt_out,
    )
    if not source.contact:
        report.note(
            f"{source.name}: crawling without a contact; set one, so that site owners can reach you"
        )
    allowed = {host_and_port(canonical(address)) for address in source.allow_origins}
    timeout, connections = source.limits.timeout_seconds, source.pace.connections
    async with WebFetcher(agent, timeout, connections, allowed) as fetcher:
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
    rules = CrawlRules(
        within=pydoc_source.Scope(source),
        max_pages=source.limits.max_pages,
        max_pages_per_host=source.limits.max_pages,
        max_depth=source.limits.max_depth,
        page_bytes=source.limits.max_page_bytes,
        seconds=source.limits.max_minutes * 60,
        delay=0,
        at_once=servers,
        connections=servers,
        respect_robots=True,
        honour_opt_out=True,
        refused=pydoc_source.refusal,
    )
    async with pydoc_source.PydocFetcher(agent, source.limits.timeout_seconds, servers) as fetcher:
        crawler = Crawler(rules, fetcher, journal, archive, report, stop)
        await crawler.run(pydoc_source.SEEDS)
    return pydoc_source.SEEDS, crawler


def _judge_seeds(
    name: str, seeds: Sequence[str], crawler: Crawler, journal: Journal, report: Report
) -> list[str]:
    """Return notes about seeds that failed.

    Raises:
        InputError: All seeds failed. The journal is discarded, so that a rerun asks again.
    """
    entries = {
        seed: journal.at(crawler.entry_offsets[seed])
        for seed in seeds
        if seed in crawler.entry_offsets
    }
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
            allowed = f"allow_origins: [{origin(seeds[0])}]"
            fix += f", or if that machine is meant, allow it by name: {allowed}"
        raise InputError(f"crawl source {name}", f"no seed could be fetched: {why}", fix)
    notes = [f"{name}: the seed {seed} failed, {detail}" for seed, detail in failed.items()]
    for note in notes:
        report.note(note)
    return notes


def _judge_hosts(name: str, crawler: Crawler, journal: Journal, report: Report) -> list[str]:
    """Return a note about the hosts that were given up.

    Raises:
        InputError: Most addresses are lost with these hosts. A rerun asks for those again.
    """
    if not crawler.lost:
        return []
    hosts = ", ".join(
        f"{host} ({count:,} addresses not asked)" for host, count in crawler.lost.most_common()
    )
    if 2 * crawler.lost.total() > len(crawler.known):
        journal.forget(
            lambda entry: entry["kind"] == "failed" and origin(entry["url"]) in crawler.lost
        )
        why = (
            f"most of its {len(crawler.known):,} known addresses are lost with hosts that do not"
            f" answer: {hosts}"
        )
        fix = (
            "run the same command again when they do: it keeps the"
            f" {crawler.pages:,} pages it has; or leave those hosts out of its scope"
        )
        raise InputError(f"crawl source {name}", why, fix)
    note = f"{name}: gave up hosts that do not answer: {hosts}"
    report.note(note)
    return [note]


def _link(path: Path, to: Path) -> None:
    """Link an archive file: it stays in scratch until the commit, so that a kill loses nothing."""
    try:
        os.link(path, to)
    except OSError:  # a filesystem without hard links
        shutil.copyfile(path, to)
