from __future__ import annotations

import asyncio
import gzip
import random
import ssl
import time
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from fastwarc.warc import ArchiveIterator, WarcRecordType

from data_contracts import ConfigError, InputError


def paths(artifact, site):
    return sorted(
        row["url"].removeprefix(site.origin)
        for row in artifact.read("documents", ["url"]).to_pylist()
    )


def failures(artifact, site):
    rows = artifact.read("failures").to_pylist()
    return {row["url"].removeprefix(site.origin): row["reason"] for row in rows}


def rows_of(artifact):
    """Rows of documents by address, each with its fetch."""
    fetches = {row["id"]: row for row in artifact.read("fetches").to_pylist()}
    return {row["url"]: row | fetches[row["id"]] for row in artifact.read("documents").to_pylist()}


def row_of(artifact, site, path):
    return rows_of(artifact)[site.origin + path]


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
    body = "<meta name=ROBOTS content='noarchive'><link rel='license' href='/cc'><p>caf\xe9 \0 \x80</p>".encode(
        "latin-1"
    )
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


def test_loopback_is_refused_unless_the_origin_is_named(site, crawl):
    site.page("/")
    with pytest.raises(
        InputError, match=rf"address_refused.*127\.0\.0\.1(?s:.)*allow_origins: \[{site.origin}\]"
    ):
        crawl(allow_origins=[])
    with pytest.raises(InputError, match="address_refused"):
        crawl(
            allow_origins=[], seeds=[f"http://localhost:{site.port}/"]
        )  # refused after the name is resolved
    assert site.log == []


def test_a_redirect_to_a_private_address_is_refused_even_in_scope(site, crawl):
    site.page("/", "/out")
    site.redirect("/out", "http://127.0.0.1:9/metadata")
    artifact = crawl(scope=[site.origin, "http://127.0.0.1:9"])
    assert failures(artifact, site) == {
        "/out": "address_refused",
        "http://127.0.0.1:9/metadata": "address_refused",
    }


@pytest.mark.parametrize("spelling", ["127.1", "2130706433", "0177.0.0.1", "0x7f.1", "0x7F000001"])
def test_loopback_in_another_spelling_is_refused_before_anybody_reads_it(site, crawl, spelling):
    site.page("/")
    with pytest.raises(InputError, match=r"address_refused.*neither a name nor an address"):
        crawl(seeds=[f"http://{spelling}:{site.port}/"])
    assert site.log == []


def test_robots_txt_that_leads_to_loopback_in_another_spelling_is_refused(site, crawl):
    site.page("/")
    site.redirect("/robots.txt", f"http://2130706433:{site.port}/rules")
    with pytest.raises(
        InputError,
        match=r"address_refused: robots\.txt cannot be had.*neither a name nor an address",
    ):
        crawl()
    assert [path for path, _ in site.log] == ["/robots.txt"]


def test_redirects_are_followed_in_scope_and_recorded(site, crawl):
    site.page("/", "/1")
    for hop in range(1, 4):
        site.redirect(f"/{hop}", f"/{hop + 1}", status=(301, 307, 308)[hop - 1])
    site.page("/4")
    row = row_of(crawl(), site, "/4")
    assert row["redirects"] == [f"{site.origin}/{hop}" for hop in (1, 2, 3)]
    assert row["depth"] == 1


def test_redirects_in_circles_in_long_chains_and_out_of_scope_are_failures(site, crawl):
    site.page("/", "/loop", "/self", "/c0", "/out", "/mail", "/out2")
    site.redirect("/loop", "/pool")
    site.redirect("/pool", "/loop")
    site.redirect("/self", "/self")
    for hop in range(8):
        site.redirect(f"/c{hop}", f"/c{hop + 1}")
    site.redirect("/out", "http://elsewhere.example/")
    site.redirect("/out2", "/out")
    site.redirect("/mail", "mailto:x@example.org")
    artifact = crawl()
    assert paths(artifact, site) == ["/"]
    expected = {
        "/loop": "too_many_redirects",
        "/pool": "too_many_redirects",
        "/self": "too_many_redirects",
        "/out": "redirect_refused",
    }
    expected |= {"/out2": "redirect_refused", "/mail": "redirect_refused"} | {
        f"/c{hop}": "too_many_redirects" for hop in range(6)
    }
    assert failures(artifact, site) == expected
    assert "/c6" not in site.asked  # five hops, not one more


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
        b'HTTP/1.1 200 \xe9\r\nContent-Type: text/plain\r\nETag: "\xe9"\r\nContent-Length: 4\r\n\r\nhere',
    )
    site.raw("/b", b"HTTP/1.1 404 Pas trouv\xe9\r\nContent-Length: 0\r\n\r\n")
    artifact = crawl()
    assert row_of(artifact, site, "/a")["etag"] == '"\N{REPLACEMENT CHARACTER}"'
    assert [row["detail"] for row in artifact.read("failures").to_pylist()] == [
        "404 Pas trouv\N{REPLACEMENT CHARACTER}"
    ]


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
        match=r"no-such-host.invalid/: connection: .*the name no-such-host.invalid does not resolve",
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


def test_a_certificate_that_nobody_vouches_for_is_refused(crawl, tmp_path):
    certificate, key = _self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def serve_and_crawl():
        server = await asyncio.start_server(
            lambda reader, writer: None, "127.0.0.1", 0, ssl=context
        )
        address = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        async with server:
            return await asyncio.to_thread(_told, crawl, address)

    assert "certificate" in asyncio.run(serve_and_crawl())


def _told(crawl, address):
    with pytest.raises(InputError) as error:
        crawl(seeds=[address], allow_origins=[address])
    return str(error.value)


def _self_signed(folder):
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = x509.CertificateBuilder(
        name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1)
    ).sign(key, hashes.SHA256())
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(secret)
    return folder / "certificate.pem", folder / "key.pem"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"seeds": ["ftp://x/"]}, "is not an http or https address"),
        ({"seeds": []}, "at least 1 item"),
        ({"skip": ["("]}, "is not a regular expression"),
        ({"max_depth": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_any_request(site, crawl, settings, told):
    with pytest.raises(ConfigError, match=told):
        crawl(**settings)
    assert site.log == []


def test_a_password_in_an_address_is_not_told(crawl):
    with pytest.raises(
        ConfigError, match=r"crawl\.sources\.0\.seeds\.0 is an address with credentials"
    ) as error:
        crawl(seeds=["https://u:hunter2@x/"])
    assert "hunter2" not in str(error.value)
