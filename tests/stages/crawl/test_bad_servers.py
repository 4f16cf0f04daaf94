"""Servers that answer slowly, without end, or in ways that HTTP does not know."""

from __future__ import annotations

import asyncio
import gzip
import time

import pytest
from aiohttp import web

from tests.stages.crawl.tables import failures, row_of


@pytest.mark.slow
def test_slow_and_silent_pages_cost_their_deadline_and_nothing_else(site, crawl):
    async def drip(request):
        response = web.StreamResponse(headers={"Content-Type": "text/html"})
        await response.prepare(request)
        while True:
            await response.write(b".")
            await asyncio.sleep(0.05)

    async def silence(request):
        await asyncio.sleep(60)

    site.page("/", "/drip", "/silence", *[f"/{n}" for n in range(20)])
    for n in range(20):
        site.page(f"/{n}")
    site.handlers |= {"/drip": drip, "/silence": silence}
    begun = time.monotonic()
    artifact = crawl(timeout_seconds=1.5)
    assert time.monotonic() - begun < 6
    assert failures(artifact, site) == {"/drip": "timeout", "/silence": "timeout"}
    assert artifact.rows("documents") == 21


def test_an_endless_page_is_cut_at_the_limit_and_a_page_shorter_than_it_says_is_a_failure(
    site, crawl, monkeypatch
):
    monkeypatch.setattr("stages.crawl.hosts.FIRST_WAIT", 0.01)

    async def endless(request):
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        while True:
            await response.write(b"x" * 1000)

    async def lying(request):
        response = web.StreamResponse(
            headers={"Content-Type": "text/html", "Content-Length": "1000"}
        )
        await response.prepare(request)
        await response.write(b"short")
        request.transport.close()
        return response

    async def bomb(request):
        return web.Response(
            body=gzip.compress(b"0" * 50_000_000),
            headers={"Content-Type": "text/plain", "Content-Encoding": "gzip"},
        )

    site.page("/", "/endless", "/lying", "/bomb")
    site.handlers |= {"/endless": endless, "/lying": lying, "/bomb": bomb}
    artifact = crawl(max_page_bytes=4096)
    row = row_of(artifact, site, "/endless")
    assert (row["body"], row["truncated"]) == (b"x" * 4096, True)
    assert row_of(artifact, site, "/bomb")["body"] == b"0" * 4096
    assert failures(artifact, site) == {"/lying": "connection"}
    assert artifact.manifest.facts["figures"]["truncated"] == 2


def test_what_is_no_document_is_a_failure_with_its_reason(site, crawl):
    site.page("/", "/gone", "/picture", "/empty", "/broken")
    site.page("/picture", content_type="image/png")
    site.page("/empty", body=b" \n")
    site.page("/broken", status=500)
    artifact = crawl()
    assert failures(artifact, site) == {
        "/gone": "http_status",
        "/picture": "media_type",
        "/empty": "empty",
        "/broken": "http_status",
    }
    assert artifact.manifest.facts["rejected"] == {"http_status": 2, "media_type": 1, "empty": 1}


def test_a_status_that_http_does_not_know_is_a_failure_without_a_status(site, crawl):
    site.page("/", "/denied")
    site.page("/denied", status=999, reason="Request denied")
    (row,) = crawl().read("failures").to_pylist()
    assert (row["reason"], row["detail"], row["status"]) == (
        "http_status",
        "999 Request denied",
        None,
    )


def test_headers_and_reason_phrases_may_be_any_bytes(site, crawl):
    site.raw("/robots.txt", b"HTTP/1.1 404 Introuvable \xe9\r\nContent-Length: 0\r\n\r\n")
    site.page("/", "/a", "/b")
    site.raw(
        "/a",
        b"HTTP/1.1 200 \xe9\r\nContent-Type: text/plain\r\n"
        b'ETag: "\xe9"\r\nContent-Length: 4\r\n\r\nhere',
    )
    site.raw("/b", b"HTTP/1.1 404 Pas trouv\xe9\r\nContent-Length: 0\r\n\r\n")
    artifact = crawl()
    assert row_of(artifact, site, "/a")["etag"] == '"\N{REPLACEMENT CHARACTER}"'
    assert [row["detail"] for row in artifact.read("failures").to_pylist()] == [
        "404 Pas trouv\N{REPLACEMENT CHARACTER}"
    ]
