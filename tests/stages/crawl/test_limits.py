"""Pace and limits: what a crawl asks, when, and where it stops."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest
from aiohttp import web

from data_contracts import InputError


def paths(artifact, site):
    return sorted(
        row["url"].removeprefix(site.origin)
        for row in artifact.read("documents", ["url"]).to_pylist()
    )


def failures(artifact, site):
    rows = artifact.read("failures").to_pylist()
    return {row["url"].removeprefix(site.origin): row["reason"] for row in rows}


@pytest.mark.slow
def test_a_server_that_asks_to_wait_is_asked_again_after_that_time(site, crawl):
    async def busy(request):
        if sum(path == "/busy" for path in site.asked) == 1:
            return web.Response(status=429, headers={"Retry-After": "2"})
        return web.Response(text="here", content_type="text/html")

    site.page("/", "/busy")
    site.handlers["/busy"] = busy
    assert paths(crawl(per_host=1), site) == ["/", "/busy"]
    first, second = (at for path, at in site.log if path == "/busy")
    assert 1.9 < second - first < 4


def test_a_host_that_asks_to_wait_for_hours_is_skipped_and_the_others_go_on(site, crawl):
    site.page("/", "/a", "/b")
    for path in ("/a", "/b"):
        site.page(path, status=503, headers={"Retry-After": "7200"})
    begun = time.monotonic()
    artifact = crawl(per_host=1)
    assert time.monotonic() - begun < 5
    assert sorted(failures(artifact, site).values()) == ["host_skipped", "http_status"]
    (note,) = artifact.manifest.facts["notes"]
    assert note == f"site: gave up hosts that do not answer: {site.origin} (1 addresses not asked)"


def test_an_outage_that_costs_most_pages_is_an_error_and_a_rerun_asks_for_those_alone(
    site, crawl, monkeypatch
):
    monkeypatch.setattr("stages.crawl.hosts.FIRST_WAIT", 0.001)
    site.page("/", *[f"/{n}" for n in range(20)])
    for n in range(20):
        site.raw(f"/{n}", b"")  # closes the connection
    for n in range(3):
        site.page(f"/{n}")
    with pytest.raises(
        InputError,
        match=rf"most of its 21 known addresses .*{site.origin} \(14 addresses(?s:.)*"
        "keeps the 4 pages",
    ):
        crawl(per_host=1)
    for n in range(3, 20):
        site.page(f"/{n}")
    site.log.clear()
    artifact = crawl(per_host=1)
    assert (artifact.rows("documents"), artifact.rows("failures")) == (21, 0)
    assert sorted(site.asked) == sorted(f"/{n}" for n in range(3, 20))


@pytest.mark.slow
def test_a_server_with_a_hostile_wish_to_wait_costs_its_page_alone(site, crawl, monkeypatch):
    monkeypatch.setattr("stages.crawl.hosts.FIRST_WAIT", 0.01)
    site.page("/", "/a", "/b")
    site.page("/a", status=503, headers={"Retry-After": "\u00b2"})
    site.page("/b", status=429, headers={"Retry-After": "Fri, 01 Jan 99999999999 00:00:00 GMT"})
    artifact = crawl(per_host=1)
    assert failures(artifact, site) == {"/a": "http_status", "/b": "http_status"}


@pytest.mark.slow
def test_crawl_delay_paces_the_requests_to_a_host(site, crawl):
    site.robots("User-agent: *\nCrawl-delay: 0.4")
    site.page("/", "/1", "/2")
    site.page("/1")
    site.page("/2")
    crawl()
    times = [at for _, at in site.log]
    assert all(later - earlier > 0.35 for earlier, later in pairwise(times))


@pytest.mark.slow
def test_only_requests_cost_a_pause(site, crawl):
    site.robots("User-agent: *\nDisallow: /private")
    site.page("/", *[f"/private/{n}" for n in range(200)], "/a")
    site.page("/a", *[f"/busy/{n}" for n in range(200)])
    for n in range(200):
        site.page(f"/busy/{n}", status=503, headers={"Retry-After": "7200"})
    begun = time.monotonic()
    artifact = crawl(delay_seconds=0.2, per_host=1)
    assert time.monotonic() - begun < 10
    assert artifact.manifest.facts["rejected"] == {
        "robots": 200,
        "host_skipped": 199,
        "http_status": 1,
    }
    times = [at for _, at in site.log]
    assert len(times) == 4
    assert all(later - earlier > 0.18 for earlier, later in pairwise(times))


def test_a_host_whose_robots_txt_may_not_be_read_is_not_waited_for(site, crawl, monkeypatch):
    monkeypatch.setattr("stages.crawl.hosts.FIRST_WAIT", 60)
    begun = time.monotonic()
    with pytest.raises(InputError, match="address_refused"):
        crawl(seeds=[f"http://127.1:{site.port}/"])
    assert time.monotonic() - begun < 30


def test_a_spider_trap_ends_at_the_page_cap_or_the_depth_cap(site, crawl):
    async def calendar(request):
        month = int(request.path.rpartition("/")[2] or 0)
        return web.Response(
            text=f'<a href="/{month + 1}">next</a><a href="/{month + 1}?s={month}">also</a>',
            content_type="text/html",
        )

    for month in range(200):
        site.handlers[f"/{month or ''}"] = calendar
    artifact = crawl(max_pages=25, max_depth=1000)
    assert len(site.asked) == 25
    assert any(
        "cut short by the limit of 25 pages" in note for note in artifact.manifest.facts["notes"]
    )
    assert max(row["depth"] for row in crawl(max_depth=3).read("documents").to_pylist()) == 3


def test_pages_that_opt_out_count_as_asked(site, crawl):
    site.page("/", *[f"/{n}" for n in range(60)])
    for n in range(60):
        site.page(f"/{n}", head="<meta name=robots content=noindex>")
    artifact = crawl(max_pages=10)
    assert len(site.asked) == 10
    assert any(
        "cut short by the limit of 10 pages" in note for note in artifact.manifest.facts["notes"]
    )


def test_addresses_that_robots_txt_disallows_are_not_counted_as_asked(site, crawl):
    site.robots("User-agent: *\nDisallow: /private")
    site.page("/", *[f"/private/{n}" for n in range(20)], "/a", "/b")
    site.page("/a")
    site.page("/b")
    artifact = crawl(max_pages=3)
    assert paths(artifact, site) == ["/", "/a", "/b"]
    assert site.asked == ["/", "/a", "/b"]
    assert artifact.manifest.facts["rejected"] == {"robots": 20}
    assert artifact.manifest.facts["notes"] == []


def test_the_limit_of_pages_per_host_is_told(site, crawl):
    site.page("/", *[f"/{n}" for n in range(10)])
    for n in range(10):
        site.page(f"/{n}")
    artifact = crawl(max_pages_per_host=3)
    assert len(site.asked) == 3
    (note,) = artifact.manifest.facts["notes"]
    assert (
        f"cut short by the limit of 3 pages per host at {site.origin};"
        " 8 known addresses were not asked" in note
    )
    assert crawl(max_pages_per_host=11).manifest.facts["notes"] == []


@pytest.mark.slow
def test_a_crawl_ends_at_its_time_limit(site, crawl):
    async def slow(request):
        await asyncio.sleep(0.1)
        return web.Response(text=f'<a href="{request.path}x">', content_type="text/html")

    for n in range(100):
        site.handlers["/" + "x" * n] = slow
    artifact = crawl(max_minutes=0.01, max_depth=1000)
    assert 2 <= len(site.asked) <= 8
    assert (
        "cut short by the time limit of 0.01 minutes; 1 known addresses"
        in artifact.manifest.facts["notes"][0]
    )


@pytest.mark.parametrize("delay", ["100000", "1e300"])
def test_a_crawl_delay_that_outlasts_the_crawl_ends_it(site, crawl, delay):
    site.robots(f"User-agent: *\nCrawl-delay: {delay}")
    site.page("/")
    begun = time.monotonic()
    with pytest.raises(
        InputError,
        match=r"0 documents \(site: cut short by the time limit of 1 minutes(?s:.)*"
        "raise that limit",
    ):
        crawl(max_minutes=1)
    assert time.monotonic() - begun < 10
    assert site.asked == []
