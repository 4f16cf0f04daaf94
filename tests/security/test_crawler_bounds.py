"""Hostile servers cost bounded memory and time, and lead nowhere but to the public internet."""

from __future__ import annotations

import asyncio
import gzip
import pickle
import socket
import zipfile
import zlib
from collections.abc import Iterator

import pytest
from aiohttp import web

from data_contracts import InputError
from stages.crawl.config import WebSource
from tests.security.crawled import crawled
from tests.stages.crawl.conftest import Site, grouped

MAX_MEGABYTES = 512


@pytest.fixture
def site() -> Iterator[Site]:
    served = Site()
    served.start()
    yield served
    served.stop()


def settings(site, **changes):
    fast = {
        "kind": "web",
        "name": "site",
        "seeds": [f"{site.origin}/"],
        "allow_origins": [site.origin],
        "contact": "test@example.org",
        "delay_seconds": 0,
        "timeout_seconds": 5,
        "per_host": 4,
        "max_pages": 50,
    }
    return grouped(WebSource, fast | changes)


def packed(megabytes: int) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    pieces = [packer.compress(b"a" * (1 << 20)) for _ in range(megabytes)]
    return b"".join([*pieces, packer.flush()])


def brotli(megabytes: int) -> bytes:
    packer = pytest.importorskip("brotli").Compressor(quality=1)
    pieces = [packer.process(b"a" * (1 << 20)) for _ in range(megabytes)]
    return b"".join([*pieces, packer.finish()])


async def endless(request):
    response = web.StreamResponse(headers={"Content-Type": "text/html"})
    await response.prepare(request)
    while True:
        await response.write(b"x" * (1 << 20))


def gzip_of_2_gb(site):
    site.page("/hostile", body=packed(2048), headers={"Content-Encoding": "gzip"})


def brotli_of_4_gb(site):
    site.page("/hostile", body=brotli(4096), headers={"Content-Encoding": "br"})


def endless_body(site):
    site.handlers["/hostile"] = endless


def links_150_000(site):
    site.page("/hostile", *[f"/private/{n}" for n in range(150_000)])


def nested_tags_250_000(site):
    site.page("/hostile", body=b"<div>" * 250_000)


def attributes_100_000(site):
    site.page(
        "/hostile", body=b"<a " + b"".join(b'a%d="b" ' % n for n in range(100_000)) + b">x</a>"
    )


HOSTILE = [
    gzip_of_2_gb,
    brotli_of_4_gb,
    endless_body,
    links_150_000,
    nested_tags_250_000,
    attributes_100_000,
]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("make", HOSTILE, ids=[make.__name__ for make in HOSTILE])
def test_a_hostile_page_takes_less_than_half_a_gigabyte_and_the_others_are_had(
    site, tmp_path, make
):
    site.robots("User-agent: *\nDisallow: /private")
    site.page("/", "/hostile", "/other")
    site.page("/other")
    make(site)
    done = crawled(tmp_path / "store", **settings(site))
    assert done.error == ""
    assert done.peak <= MAX_MEGABYTES, done
    assert "/hostile" in site.asked
    assert done.documents >= 2


def test_a_page_of_too_many_attributes_is_counted_and_not_parsed(site, run):
    """libxml2 takes the square of their number: a minute of processor time."""
    site.page("/", "/hostile", "/other")
    site.page("/other")
    attributes_100_000(site)
    artifact = run("crawl", {"sources": [settings(site)]})
    assert artifact.rows("documents") == 2
    (failure,) = artifact.read("failures").to_pylist()
    assert failure["url"] == f"{site.origin}/hostile"
    assert failure["reason"] == "unreadable_row"
    assert "a tag <a> of 100,000 attributes, of which 1,024 are read" in failure["detail"]


def stalling(sent: bytes, again: bytes = b""):
    """A server that sends `sent` to each connection, then waits or repeats `again` without end."""

    async def talk(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(sent)
            while again:
                writer.write(again)
                await writer.drain()
            await asyncio.sleep(60)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.close()

    return talk


@pytest.fixture
def raw(site):
    """raw(talk) → the origin of a server whose connections `talk` handles."""
    servers = []

    def start(talk):
        listener = socket.create_server(("127.0.0.1", 0))
        servers.append(
            asyncio.run_coroutine_threadsafe(
                asyncio.start_server(talk, sock=listener), site._loop
            ).result(10)
        )
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for server in servers:
        site._loop.call_soon_threadsafe(server.close)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "again"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b""),
        (b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"a" * 4000 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"a" * 65536),
        (b"HTTP/1.1 200 ", b"a" * 65536),
        (b"", b""),
    ],
    ids=["slow header", "endless headers", "endless header", "endless reason", "silence"],
)
def test_headers_that_do_not_end_cost_that_page_alone(site, raw, tmp_path, sent, again):
    origin = raw(stalling(sent, again))
    site.page("/")
    both = {
        "seeds": [f"{site.origin}/", f"{origin}/x"],
        "allow_origins": [site.origin, origin],
        "timeout_seconds": 1,
    }
    done = crawled(tmp_path / "store", **settings(site, respect_robots=False, **both))
    assert (done.documents, done.error) == (1, "")
    assert sum(done.rejected.values()) == 1
    assert done.peak <= MAX_MEGABYTES


ELSEWHERE = [
    "http://127.0.0.1:9/",
    "http://localhost:9/",
    "http://127.1:9/",
    "http://2130706433:9/",
    "http://0x7f000001:9/",
    "http://0177.0.0.1:9/",
    "http://0.0.0.0:9/",
    "http://[::1]:9/",
    "http://[::ffff:127.0.0.1]:9/",
    "http://[::]:9/",
    "http://[64:ff9b::7f00:1]:9/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fe80::1]/",
    "http://10.0.0.1/",
    "http://192.168.0.1/",
    "http://100.64.0.1/",
    "file:///etc/passwd",
    "ftp://example.org/",
    "data:text/html,x",
    "javascript:alert(1)",
    "http://pydoc.localhost/os.html",
]


@pytest.mark.parametrize("to", ELSEWHERE)
def test_a_redirect_or_a_link_to_this_machine_or_its_network_is_refused(site, run, to):
    site.page("/", "/moved", to)
    site.redirect("/moved", to)
    scope = [site.origin, to] if to.startswith("http") and "pydoc" not in to else [site.origin]
    artifact = run("crawl", {"sources": [settings(site, scope=_valid(scope))]})
    assert [row["url"] for row in artifact.read("documents", ["url"]).to_pylist()] == [
        f"{site.origin}/"
    ]
    reasons = {row["reason"] for row in artifact.read("failures").to_pylist()}
    assert reasons <= {"address_refused", "redirect_refused", "out_of_scope"}
    assert reasons


def _valid(addresses):
    from stages.crawl.urls import canonical

    kept = []
    for address in addresses:
        try:
            kept.append(canonical(address))
        except ValueError:
            continue
    return kept


def test_redirects_in_a_circle_end(site, run):
    site.page("/", "/loop", "/self")
    site.redirect("/loop", "/pool")
    site.redirect("/pool", "/loop")
    site.redirect("/self", "/self")
    artifact = run("crawl", {"sources": [settings(site)]})
    assert artifact.rows("documents") == 1
    assert len(site.asked) <= 8


@pytest.fixture
def planted(tmp_path):
    """A file that must not be created, and a pickle and a program that would create it."""
    return tmp_path / "planted"


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.slow  # imports `datasets`
@pytest.mark.parametrize("kind", ["script", "pickle", "zip", "named script"])
def test_a_data_set_runs_nothing_and_writes_nothing(tmp_path, planted, kind):
    folder = tmp_path / "set"
    folder.mkdir()
    program = f"open({str(planted)!r}, 'w')\n"
    if kind == "script":
        (folder / "set.py").write_text(program)
    elif kind == "named script":
        (folder / "set.py").write_text(program)
        folder = folder / "set.py"
    elif kind == "pickle":
        (folder / "rows.pkl").write_bytes(pickle.dumps(_Touch(planted)))
    else:
        with zipfile.ZipFile(folder / "rows.zip", "w") as archive:
            archive.writestr("../../planted", "x")
            archive.writestr(str(planted), "x")
    done = crawled(tmp_path / "store", kind="dataset", dataset=str(folder))
    assert not planted.exists()
    assert not (tmp_path.parent / "planted").exists()
    assert done.documents == 0
    assert done.error


def test_a_page_that_is_packed_many_times_over_is_unpacked_once(site, run):
    site.page("/", "/twice")
    site.page(
        "/twice",
        body=gzip.compress(gzip.compress(b"a" * 1000)),
        headers={"Content-Encoding": "gzip, gzip"},
    )
    artifact = run("crawl", {"sources": [settings(site)]})
    bodies = [row["body"] for row in artifact.read("documents").to_pylist()]
    assert b"a" * 1000 not in bodies


def test_what_is_no_public_address_cannot_be_a_seed(run, site):
    with pytest.raises(InputError, match="address_refused"):
        run("crawl", {"sources": [settings(site, allow_origins=[])]})
