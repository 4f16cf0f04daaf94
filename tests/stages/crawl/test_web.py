"""Pages of a web site: which are followed, and what a row says of each."""

from __future__ import annotations

import asyncio
import gzip
import random
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from fastwarc.warc import ArchiveIterator, WarcRecordType

from data_contracts import ConfigError, InputError
from tests.stages.crawl.tables import failures, paths, row_of, rows_of


def test_links_in_scope_are_followed_once_however_they_are_spelt(site, crawl):
    site.page(
        "/",
        "a?x=1&y=2",
        "/a?y=2&x=1#part",
        "./b/../a?y=2&x=1",
        f"HTTP://127.0.0.1:{site.port}/%61?x=1&y=2",
        "http://elsewhere.example/",
    )
    site.page(
        "/a",
        "/",
        "mailto:x@example.org",
        "javascript:void(0)",
        "http://[broken",
        "file:///etc/passwd",
    )
    artifact = crawl()
    assert paths(artifact, site) == ["/", "/a?x=1&y=2"]
    assert site.asked == ["/", "/a?x=1&y=2"]
    assert artifact.rows("failures") == 0


def test_each_pattern_of_skip_is_a_regular_expression_of_its_own(site, crawl):
    site.page("/", "/a.PDF", "/b/b", "/c/d")
    site.page("/c/d")
    artifact = crawl(skip=["x", r"(?i)\.pdf$", r"(b)/\1"])
    assert paths(artifact, site) == ["/", "/c/d"]
    assert artifact.rows("failures") == 0


def test_a_row_holds_the_untouched_bytes_and_the_evidence_of_the_fetch(site, crawl):
    head = b"<meta name=ROBOTS content='noarchive'><link rel='license' href='/cc'>"
    body = head + b"<p>caf\xe9 \0 \x80</p>"
    headers = {
        "Content-Type": "text/html; charset=ISO-8859-1",
        "ETag": '"1"',
        "X-Robots-Tag": "noarchive",
        "Last-Modified": "yesterday",
    }
    site.page("/", body=body, headers=headers)
    site.robots("User-agent: *\nDisallow: /x")
    before = datetime.now(UTC)
    row = row_of(crawl(), site, "/")
    assert row["body"] == body
    assert (row["media_type"], row["charset"], row["status"], row["depth"], row["robots"]) == (
        "text/html",
        "iso-8859-1",
        200,
        0,
        "allowed",
    )
    assert (row["etag"], row["x_robots_tag"], row["last_modified"]) == (
        '"1"',
        "noarchive",
        "yesterday",
    )
    assert (row["meta_robots"], row["license"], row["redirects"], row["truncated"]) == (
        "noarchive",
        "/cc",
        [],
        False,
    )
    assert before - timedelta(seconds=1) < row["fetched_at"] < datetime.now(UTC)
    assert "groundup/" in site.headers[-1]["User-Agent"]
    assert "test@example.org" in site.headers[-1]["User-Agent"]


def test_the_archive_read_by_another_library_equals_the_table(site, crawl):
    site.page("/", "/zipped", "/old", text="é" * 3000)
    site.page(
        "/zipped",
        body=gzip.compress(b"<p>zipped</p>"),
        headers={"Content-Encoding": "gzip", "X-Odd": "\u00fc"},
    )
    site.redirect("/old", "/zipped")
    site.robots("User-agent: *\nDisallow: /x")
    artifact = crawl()
    rows = rows_of(artifact)
    assert rows[f"{site.origin}/zipped"]["body"] == b"<p>zipped</p>"
    kinds: dict[str, list[str]] = {}
    for record in ArchiveIterator(
        artifact.path.joinpath("warc/site-00000.warc.gz").open("rb"), parse_http=False
    ):
        url = record.headers.get("WARC-Target-URI") or ""
        kinds.setdefault(url.removeprefix(site.origin), []).append(record.headers["WARC-Type"])
        if url in rows and record.record_type == WarcRecordType.response:
            assert record.verify_block_digest(consume=False)
            record.parse_http()
            assert record.stream_pos == rows[url]["warc_offset"]
            assert rows[url]["warc_file"] == "warc/site-00000.warc.gz"
            assert record.reader.read() == rows[url]["body"]
    assert kinds == {
        "": ["warcinfo"],
        "/robots.txt": ["response", "request"],
        "/": ["response", "request"],
        "/zipped": ["response", "request"],
    }


def test_both_schemes_of_the_host_of_a_seed_are_in_scope(site, crawl, monkeypatch):
    monkeypatch.setattr("stages.crawl.hosts.FIRST_WAIT", 0.01)
    secure = site.origin.replace("http:", "https:")
    site.page("/", f"{secure}/linked", "/moved")
    site.redirect("/moved", f"{secure}/moved")
    wanted = {
        "/moved": "connection",
        f"{secure}/moved": "connection",
        f"{secure}/linked": "connection",
    }
    assert failures(crawl(), site) == wanted  # that server speaks no TLS, but it was asked


def test_depth_is_the_shortest_way_even_if_that_way_is_found_last(site, crawl):
    async def late(request):
        await asyncio.sleep(0.4)
        return web.Response(text='<a href="/deep">', content_type="text/html")

    site.page("/", "/late", "/a")
    site.handlers["/late"] = late
    site.page("/a", "/b")
    site.page("/b", "/deep")
    site.page("/deep", "/deeper")
    site.page("/deeper")
    artifact = crawl(max_depth=3)
    depths = {
        row["url"].removeprefix(site.origin): row["depth"]
        for row in artifact.read("documents").to_pylist()
    }
    assert depths == {"/": 0, "/late": 1, "/a": 1, "/b": 2, "/deep": 2, "/deeper": 3}


@pytest.mark.slow
def test_rows_do_not_depend_on_the_order_of_arrival(site, run, source, store):
    shuffled = random.Random(3)

    async def hesitant(request):
        await asyncio.sleep(shuffled.random() / 20)
        n = int(request.path[1:] or 0)
        if n % 7 == 3:
            return web.Response(status=302, headers={"Location": f"/{n * 2 % 60}"})
        return web.Response(
            text="".join(f'<a href="/{m % 60}">' for m in (n + 1, n * 2, n * 3)),
            content_type="text/html",
        )

    for n in range(60):
        site.handlers[f"/{n or ''}"] = hesitant
    site.handlers["/0"] = hesitant
    columns = ["id", "url", "body_sha256", "depth", "redirects"]
    first, second = (
        run("crawl", source(per_host=8), as_of=day) for day in ("2026-01-01", "2026-01-02")
    )
    assert first.id != second.id
    assert first.read("documents", columns).equals(second.read("documents", columns))
    assert first.read("failures").equals(second.read("failures"))
    assert first.rows("documents") > 30
    ids = first.read("documents", ["id"]).column(0).to_pylist()
    assert ids == sorted(ids)


@pytest.mark.parametrize(
    ("body", "declared"),
    [
        ('<a href="/é">x</a>'.encode("utf-16"), "utf-8"),
        ('<p>テスト</p><a href="/é">x</a>'.encode("shift_jis", "xmlcharrefreplace"), "utf-8"),
        ('<a href="/é">\x00x</a>'.encode("windows-1252"), "windows-1252"),
        ("\0<\0" * 10 + '<a href="/é">x</a>', "no-such-charset"),
    ],
    ids=[
        "utf-16 with bom said to be utf-8",
        "shift-jis said to be utf-8",
        "windows-1252 with nul",
        "unknown charset",
    ],
)
def test_links_are_found_and_bytes_kept_whatever_the_charset_says(site, crawl, body, declared):
    body = body.encode() if isinstance(body, str) else body
    site.page("/", body=body, headers={"Content-Type": f"text/html; charset={declared}"})
    site.page("/é")
    artifact = crawl()
    assert row_of(artifact, site, "/")["body"] == body
    assert row_of(artifact, site, "/")["charset"] == declared
    assert any(
        path.startswith("/%") or path.startswith("/&")
        for path in [*paths(artifact, site), *failures(artifact, site)]
    )


def test_a_seed_that_does_not_resolve_is_named_and_one_of_several_is_a_note(site, crawl):
    lost = "http://no-such-host.invalid/"
    with pytest.raises(
        InputError,
        match=r"no-such-host.invalid/: connection: .*the name no-such-host.invalid does not"
        " resolve",
    ):
        crawl(seeds=[lost])
    site.page("/")
    artifact = crawl(seeds=[lost, f"{site.origin}/"])
    assert failures(artifact, site) == {lost: "connection"}
    assert any(lost in note for note in artifact.manifest.facts["notes"])


def test_an_empty_crawl_is_an_error_with_counts_and_a_rerun_asks_again(site, crawl):
    site.redirect("/", "/home")
    with pytest.raises(InputError, match=r"0 documents \(http_status 2\)"):
        crawl()
    site.page("/home")
    assert paths(crawl(), site) == ["/home"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": ["ftp://x/"]}, "is not an http or https address"),
        ({"seeds": []}, "at least 1 item"),
        ({"skip": ["("]}, "is not a regular expression"),
        ({"max_depth": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_any_request(site, crawl, settings, message):
    with pytest.raises(ConfigError, match=message):
        crawl(**settings)
    assert site.log == []


def test_a_password_in_an_address_is_not_told(crawl):
    with pytest.raises(
        ConfigError, match=r"crawl\.sources\.0\.seeds\.0 is an address with credentials"
    ) as error:
        crawl(seeds=["https://u:hunter2@x/"])
    assert "hunter2" not in str(error.value)
