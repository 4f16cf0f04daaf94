"""robots.txt over HTTP, and pages that opt out."""

from __future__ import annotations

import gzip

import pytest
from aiohttp import web

from data_contracts import InputError
from tests.stages.crawl.tables import failures, paths, row_of


@pytest.mark.parametrize(
    ("robots", "status", "kept"),
    [
        ("User-agent: *\nDisallow: /private", 200, ["/", "/open"]),
        (b"\xef\xbb\xbfUser-agent: *\r\nDisallow: /private\r\n", 200, ["/", "/open"]),
        (
            "User-agent: groundup\nDisallow: /open\n\nUser-agent: *\nDisallow: /",
            200,
            ["/", "/private"],
        ),
        ("User-agent: *\nDisallow: /*iva", 200, ["/", "/open"]),
        ("# " + "x" * 600_000 + "\nUser-agent: *\nDisallow: /", 200, ["/", "/open", "/private"]),
        ("User-agent: *\nDisallow: /", 404, ["/", "/open", "/private"]),
        ("User-agent: *\nDisallow: /", 401, ["/", "/open", "/private"]),
    ],
    ids=[
        "rules",
        "bom and crlf",
        "own group",
        "wildcard",
        "only the first 500 KiB",
        "404 allows",
        "401 allows",
    ],
)
def test_robots_txt_is_obeyed_as_rfc_9309_reads_it(site, crawl, robots, status, kept):
    site.robots(robots, status)
    site.page("/", "/open", "/private")
    site.page("/open")
    site.page("/private")
    artifact = crawl()
    assert paths(artifact, site) == kept
    assert set(failures(artifact, site).values()) <= {"robots"}
    assert {row["robots"] for row in artifact.read("documents").to_pylist()} == {
        "allowed" if status == 200 else "absent"
    }


@pytest.mark.parametrize("trouble", ["busy", "broken"])
def test_robots_txt_is_tried_as_often_as_a_page(site, crawl, monkeypatch, trouble):
    monkeypatch.setattr("stages.crawl.hosts.FIRST_WAIT", 0.01)
    tries = []

    async def shaky(request):
        tries.append(request.path)
        if len(tries) == 3:
            return web.Response(text="User-agent: *\nDisallow: /private")
        if trouble == "busy":
            return web.Response(status=503)
        request.transport.close()
        return web.Response()

    site.handlers["/robots.txt"] = shaky
    site.page("/", "/private")
    artifact = crawl()
    assert len(tries) == 3
    assert paths(artifact, site) == ["/"]
    assert failures(artifact, site) == {"/private": "robots"}


def test_a_robots_txt_that_cannot_be_had_forbids_everything(site, crawl, monkeypatch):
    monkeypatch.setattr("stages.crawl.hosts.FIRST_WAIT", 0.01)
    site.page("/")
    site.robots("", 503)
    with pytest.raises(
        InputError, match=r"robots: robots.txt answers 503, so nothing may be fetched"
    ):
        crawl()
    assert site.asked == []
    site.page("/robots.txt", status=404)
    assert paths(crawl(), site) == ["/"]  # the refusal was not remembered


def test_robots_txt_behind_five_redirects_counts_and_behind_six_does_not(site, crawl):
    site.page("/")
    site.robots("User-agent: *\nDisallow: /")
    site.handlers["/rules"] = site.handlers["/robots.txt"]
    for hop in range(6):
        site.redirect(f"/r{hop}", f"/r{hop + 1}" if hop < 5 else "/rules")
    site.redirect("/robots.txt", "/r2")
    with pytest.raises(InputError, match=r"robots\.txt disallows it"):
        crawl()
    site.redirect("/robots.txt", "/r1")
    assert paths(crawl(), site) == ["/"]


@pytest.mark.parametrize("how", ["meta", "header", "tdm"])
def test_a_page_that_opts_out_is_a_failure_and_is_kept_only_if_the_settings_say_so(
    site, crawl, how
):
    site.page("/", "/no")
    head = {
        "meta": "<meta name='robots' content='index, NoAI'>",
        "tdm": "<meta name='tdm-reservation' content='1'>",
    }.get(how, "")
    site.page("/no", head=head, headers={"X-Robots-Tag": "noindex"} if how == "header" else {})
    artifact = crawl()
    assert failures(artifact, site) == {"/no": "robots"}
    assert b"Page /no" not in gzip.decompress(
        (artifact.path / "warc/site-00000.warc.gz").read_bytes()
    )
    kept = row_of(crawl(honour_opt_out=False), site, "/no")
    assert kept["meta_robots" if how == "meta" else "url"]
    assert kept["x_robots_tag"] == ("noindex" if how == "header" else None)


def test_links_of_a_page_that_opts_out_are_followed(site, crawl):
    site.page("/", "/no")
    site.page(
        "/no", "/a", '/never" rel="nofollow', head="<meta name=robots content='noindex, follow'>"
    )
    site.page("/a")
    artifact = crawl()
    assert paths(artifact, site) == ["/", "/a"]
    assert failures(artifact, site) == {"/no": "robots"}


def test_nofollow_is_obeyed(site, crawl):
    site.page("/", "/a", '/b" rel="nofollow')
    site.page("/a", "/c", head="<meta name=robots content=nofollow>")
    assert paths(crawl(), site) == ["/", "/a"]
