"""The crawl: from seeds along links, politely, until nothing is left or a limit is reached.

Every hop of a redirect is a separate address that passes the same checks: scope, robots.txt, public
address, pace. The result does not depend on the order of arrival, unless a limit cuts the crawl
short: depth is the shortest way from a seed, and is lowered, with everything behind it, when a
shorter way is found.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from datetime import UTC, datetime

from data_contracts import Interrupted
from stages.crawl import entries, page, robots
from stages.crawl.archive import Archive, ArchivePosition
from stages.crawl.crawl_rules import CrawlRules, Distance
from stages.crawl.fetch import (
    REDIRECTS,
    TRY_LATER,
    Fetcher,
    FetchError,
    HttpResponse,
    retry_after,
)
from stages.crawl.hosts import Host, Hosts
from stages.crawl.journal import Journal, JournalEntry
from stages.crawl.urls import origin
from stages.report import Report

MAX_HOPS = 5
TRIES = 3
NO_ANSWER = frozenset({"host_skipped", "connection", "timeout"})  # why a host is given up
_POLL = 0.2  # seconds between checks for a request to stop
_SHORTEST_PAUSE = 0.001  # seconds


class Crawler:
    """The crawl of one source.

    When `run` returns, everything that it found is in the journal and the archive.
    """

    def __init__(
        self,
        rules: CrawlRules,
        fetcher: Fetcher,
        journal: Journal,
        archive: Archive,
        report: Report,
        stop: Callable[[], bool],
    ):
        """Prepare a crawl.

        Args:
            rules: What bounds it.
            fetcher: Where pages come from.
            journal: What became of each address, in this run and in those before.
            archive: The pages.
            report: Receives the progress.
            stop: Whether a signal asked to stop.
        """
        self.rules = rules
        self._fetcher = fetcher
        self._journal = journal
        self._archive = archive
        self._report = report
        self._stop = stop
        self.known: dict[str, Distance] = {}
        self.entry_offsets: dict[str, int] = {}  # address → offset in the journal
        self.asked = 0
        self.pages = 0
        self.bytes = 0
        self.resumed = 0  # addresses that an earlier run had finished
        # By host that was given up: the number of addresses that were therefore not asked.
        self.lost: Counter[str] = Counter()
        self.cut_short = ""
        self._hosts = Hosts(rules)
        self._under_way: dict[asyncio.Task[None], Host] = {}
        self._taken: set[str] = set()
        self._writing = asyncio.Lock()

    async def run(self, seeds: Sequence[str]) -> None:
        """Crawl from `seeds`.

        Raises:
            Interrupted: A signal asked to stop. Everything that is finished is on disk.
        """
        self._end = time.monotonic() + self.rules.seconds
        for seed in seeds:
            self._discover(seed, 0, 0)
        self._resume()
        try:
            while self._start_what_may() or self._under_way:
                await self._wait()
                self._report.progress(len(self.entry_offsets), len(self.known), "pages")
        finally:
            await self._abandon()

    @property
    def left(self) -> int:
        """Addresses that are known and were not asked."""
        return len(self.known) - len(self.entry_offsets)

    @property
    def limits(self) -> str:
        """The limits that cut the crawl short, for the reader; empty if none did."""
        limits = [self.cut_short] if self.cut_short else []
        most = self.rules.max_pages_per_host
        full = self._hosts.full(self._taken)
        if full and most < self.rules.max_pages:  # else it is the limit of the whole crawl
            others = ""
            if len(full) > 1:
                others = f" and {len(full) - 1:,} other hosts"
            limits.append(f"the limit of {most:,} pages per host at {min(full)}{others}")
        return " and ".join(limits)

    def _resume(self) -> None:
        last: ArchivePosition | None = None
        end = 0
        for offset, following, entry in self._journal.replay():
            if "record" in entry:
                record = ArchivePosition(*entry["record"])
                if not self._archive.holds(record):
                    break
                last = record
            self._apply_entry(entry, offset)
            end = following
        self._journal.cut(end)
        self._archive.cut(last)
        self.resumed = len(self.entry_offsets)
        if self.resumed:
            self._report.note(
                f"continued after {self.resumed} addresses that an earlier run had settled"
            )

    def _discover(self, url: str, depth: int, hops: int) -> None:
        """Record an address, or a shorter way to a known one.

        Args:
            url: The address.
            depth: Links from a seed.
            hops: Redirects since the last link.
        """
        pending = [(url, depth, hops)]
        while pending:
            url, depth, hops = pending.pop()
            if depth > self.rules.max_depth or hops > MAX_HOPS:
                continue
            if not self.rules.within(url):
                continue
            known = self.known.get(url)
            if known is None:
                self.known[url] = Distance(depth, hops)
                self._queue(url, depth)
            elif depth < known.depth or hops < known.hops:
                known.depth = min(depth, known.depth)
                known.hops = min(hops, known.hops)
                pending += self._moved_closer(url, known)

    def _moved_closer(self, url: str, known: Distance) -> list[tuple[str, int, int]]:
        """Return the addresses that a known one leads to and that are closer now, too."""
        if url in self.entry_offsets:
            entry = self._journal.at(self.entry_offsets[url])
            return self._onward(entry, known)
        if url not in self._taken:
            self._queue(url, known.depth)
        return []

    def _onward(self, entry: JournalEntry, distance: Distance) -> list[tuple[str, int, int]]:
        """Return the addresses that an entry leads to, each with depth and hops."""
        if entry["kind"] == "moved":
            return [(entry["to"], distance.depth, distance.hops + 1)]
        return [(link, distance.depth + 1, 0) for link in entry.get("links", ())]

    def _queue(self, url: str, depth: int) -> None:
        host = self._hosts.of(url)
        host.put(depth, len(self.known), url)
        self._hosts.schedule(host, self._taken)

    def _apply_entry(self, entry: JournalEntry, offset: int) -> None:
        """Update all counts with an entry of the journal."""
        url = entry["url"]
        self.entry_offsets[url] = offset
        self._taken.add(url)
        distance = self.known.setdefault(url, Distance(0, 0))
        if entry["kind"] == "page":
            self.pages += 1
            self.bytes += entry["bytes"]
        if entry.get("asked", True):
            self.asked += 1
            self._hosts.of(url).asked += 1
        elif entry["reason"] in NO_ANSWER:
            self.lost[origin(url)] += 1
        for way in self._onward(entry, distance):
            self._discover(*way)

    def _start_what_may(self) -> bool:
        """Start every request that limits and politeness allow now.

        Returns:
            Whether requests are left that may be started later.
        """
        now = time.monotonic()
        if self._hosts.scheduled:
            self._check_limits(now)
        while self._hosts.soonest <= now and self._may_start_more():
            host = self._hosts.next()
            if host.asked + host.active >= self.rules.max_pages_per_host:
                continue
            if host.ready_at <= now and host.waiting:
                self._start(host, now)
            self._hosts.schedule(host, self._taken)
        return self._hosts.scheduled and not self.cut_short

    def _check_limits(self, now: float) -> None:
        """End the crawl if a limit is reached while hosts have something to do."""
        soonest = now
        if not self._under_way:
            soonest = max(now, self._hosts.soonest)  # a Crawl-delay may outlast the crawl
        if soonest > self._end:
            self.cut_short = f"the time limit of {self.rules.seconds / 60:g} minutes"
        elif self.asked >= self.rules.max_pages:
            self.cut_short = f"the limit of {self.rules.max_pages:,} pages"

    def _may_start_more(self) -> bool:
        if self.cut_short:
            return False
        under_way = len(self._under_way)
        if under_way >= self.rules.connections:
            return False
        return self.asked + under_way < self.rules.max_pages

    def _start(self, host: Host, now: float) -> None:
        """Start the next step at a host: its robots.txt if that is due, else an address.

        Only a request is followed by a pause.
        """
        if host.rules_until <= now:
            host.reading_rules = True
            step = self._read_rules(host)
        else:
            url = host.take()
            if url in self._taken:
                return
            self._taken.add(url)
            refusal = host.refusal(url)
            if refusal is None:
                host.asked_now(now)
            step = self._visit(url, host, refusal)
        host.active += 1
        self._under_way[asyncio.create_task(step)] = host

    async def _wait(self) -> None:
        """Wait until a request ends, may be started, or a signal asks to stop."""
        if self._stop():
            raise Interrupted(
                "crawl",
                f"stopped by a signal after {self.pages:,} pages; all of them are kept",
                "run the same command again: it continues from there",
            )
        pause = _POLL
        if self._hosts.scheduled and self._may_start_more():
            until_ready = self._hosts.soonest - time.monotonic()
            pause = min(_POLL, max(_SHORTEST_PAUSE, until_ready))
        if not self._under_way:
            await asyncio.sleep(pause)
            return
        done, _ = await asyncio.wait(
            self._under_way,
            timeout=pause,
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in done:
            host = self._under_way.pop(task)
            host.active -= 1
            task.result()
            self._hosts.schedule(host, self._taken)

    async def _abandon(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _read_rules(self, host: Host) -> None:
        """Read the robots.txt of a host: once a day, with as many tries as a page."""

        async def get(url: str) -> HttpResponse:
            return await self._get(url, host, robots.MAX_BYTES, None)

        host.rules, responses = await robots.read(get, host.origin)
        now = time.monotonic()
        host.rules_until = now + robots.MAX_AGE
        if host.rules.refusal is None:
            host.asked_now(now)  # with the pause that the rules ask for
        else:
            host.ready_at = now  # nothing more is asked of it
        for response in responses:
            await self._store(response)
        host.reading_rules = False

    async def _visit(self, url: str, host: Host, refusal: FetchError | None) -> None:
        """Record one address as a page, a redirect or a failure.

        Args:
            url: The address.
            host: Its host.
            refusal: Why no request is made, if none is.
        """
        if refusal is not None:
            entry = entries.failed(url, refusal) | {"asked": False}
        else:
            try:
                response = await self._get(url, host, self.rules.page_bytes, page.WANTED)
                entry = await self._entry_for(response, host.rules)
            except FetchError as error:
                entry = entries.failed(url, error)
        self._apply_entry(entry, self._journal.append(entry))

    async def _get(
        self,
        url: str,
        host: Host,
        limit: int,
        wanted: Container[str] | None,
    ) -> HttpResponse:
        """Try up to three times, each when the host may be asked again.

        Args:
            url: The address.
            host: Its host.
            limit: Bytes of the body after which it is cut.
            wanted: Media types whose bodies are read; None for all.

        Returns:
            The response. If the server is busy every time, its last one.
        """
        for attempt in range(1, TRIES + 1):
            try:
                response = await self._fetcher.get(url, limit, wanted)
            except FetchError as error:
                if not error.of_page:
                    host.failed(time.monotonic(), None)
                if not error.again or not self._may_try_again(host, attempt):
                    raise
            else:
                if response.status not in TRY_LATER:
                    host.answered()
                    return response
                wait = retry_after(response, datetime.now(UTC))
                host.failed(time.monotonic(), wait)
                if not self._may_try_again(host, attempt):
                    return response
            await host.turn()
            if host.skipped:
                raise host.given_up()
        raise AssertionError("unreachable")

    def _may_try_again(self, host: Host, attempt: int) -> bool:
        return attempt < TRIES and not host.skipped and host.ready_at <= self._end

    async def _entry_for(
        self, response: HttpResponse, robots_rules: robots.RobotsRules
    ) -> JournalEntry:
        """Return what becomes of an address, by the response; a page is written to the archive.

        Raises:
            FetchError: It gives no document.
        """
        if response.status in REDIRECTS:
            return entries.moved(response, self.rules)
        entries.check(response, self.rules)
        facts = entries.facts_of(response)
        links = list(filter(self.rules.within, facts.links))
        if facts.opt_out and self.rules.honour_opt_out:
            return entries.opted_out(response, facts.opt_out, links)
        record = await self._store(response)
        return entries.of_page(response, facts, robots_rules.verdict, record, links)

    async def _store(self, response: HttpResponse) -> ArchivePosition:
        async with self._writing:
            return await asyncio.to_thread(self._archive.write, response)
