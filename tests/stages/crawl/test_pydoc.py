from __future__ import annotations

import asyncio
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import stages
from data_contracts import InputError
from stages.crawl.fetch import FetchError
from stages.crawl.pydoc_source import PydocFetcher, _of_host
from stages.documentation_server import ORIGIN

pytestmark = pytest.mark.slow

ONLY = (
    r"^(?!(?:index|topics|keywords|json|textwrap|_tkinter)(?:\.|$))"  # leaves out all other modules
)
HTML = frozenset({"text/html"})


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], int]:
    """Count the living documentation servers of this test, by its folder for temporary files."""
    if not Path("/proc").is_dir():
        pytest.skip("needs /proc to look for processes")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # of this process
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # of those that it starts

    def alive(process: Path) -> bool:
        try:
            works_in = os.readlink(process / "cwd")
            return b"pydoc_server.py" in (process / "cmdline").read_bytes() and works_in.startswith(
                f"{tmp_path.resolve()}/"
            )
        except OSError:  # gone meanwhile, or somebody else's
            return False

    return lambda: sum(alive(process) for process in Path("/proc").glob("[0-9]*"))


def crawl_some(run, **changes):
    return run("crawl", {"sources": [{"kind": "pydoc", "skip": [ONLY], "servers": 2} | changes]})


def test_the_documentation_server_is_really_crawled_and_stopped(run, servers):
    artifact = crawl_some(run)
    rows = {row["url"].removeprefix(ORIGIN): row for row in artifact.read("documents").to_pylist()}
    modules = {path for path in rows if path.endswith(".html")}
    assert {"/index.html", "/json.html", "/json.decoder.html", "/textwrap.html"} <= modules
    assert not modules & {"/os.html", "/numpy.html"}
    assert b"Serialize" in rows["/json.html"]["body"]
    assert b"if_stmt" in rows["/topic?key=if"]["body"]
    assert rows["/json.decoder.html"]["depth"] == 2
    assert len(rows) > 100
    assert artifact.files("warc")
    assert servers() == 0


def test_two_crawls_give_the_same_bytes_though_objects_lie_elsewhere_in_memory(run):
    # These modules have functions whose defaults are functions.
    only = r"^(?!(?:index|shutil|tarfile|argparse)$)"

    def tables(day):
        artifact = run(
            "crawl",
            {
                "sources": [
                    {"kind": "pydoc", "skip": [only], "servers": 1, "limits": {"max_depth": 1}}
                ]
            },
            as_of=day,
        )
        bodies = artifact.read("documents", ["url", "body"]).to_pylist()
        files = {
            name: [path.read_bytes() for path in sorted((artifact.path / name).iterdir())]
            for name in ("documents", "failures")
        }
        return {row["url"].removeprefix(f"{ORIGIN}/"): row["body"] for row in bodies}, files

    (pages, one), (_, other) = tables("2026-01-01"), tables("2026-01-02")
    assert one["documents"]
    assert one == other
    assert b"copy_function=&lt;function copy2&gt;" in pages["shutil.html"].replace(b"&nbsp;", b" ")


def test_no_page_shows_the_environment_of_the_user_and_pages_do_not_depend_on_it(
    run, tmp_path, monkeypatch
):
    shown = (
        "cgi",
        "os",
        "posix",
        "site",
        "time",
        "wsgiref.simple_server",
    )  # values of variables, or made of them
    only = rf"^(?!(?:index|topics|keywords|wsgiref|{'|'.join(map(re.escape, shown))})$)"

    def pages(day, zone, language):
        (tmp_path / day).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / day))
        changed = {
            "A_SECRET": f"secret-{day}",
            "HOME": str(tmp_path),
            "PATH": f"/secret-{day}:{os.environ['PATH']}",
            "TZ": zone,
        }
        for name, value in (
            changed | {"LANG": language, "LC_ALL": language, "PYTHONSTARTUP": f"secret-{day}"}
        ).items():
            monkeypatch.setenv(name, value)
        artifact = run(
            "crawl",
            {
                "sources": [
                    {"kind": "pydoc", "skip": [only], "servers": 1, "limits": {"max_depth": 2}}
                ]
            },
            as_of=day,
        )
        rows = artifact.read("documents", ["url", "body"]).to_pylist()
        return {row["url"].removeprefix(f"{ORIGIN}/"): row["body"] for row in rows}

    one, other = (
        pages("2026-01-01", "Asia/Tokyo", "C"),
        pages("2026-01-02", "America/New_York", "en_US.UTF-8"),
    )
    assert {"os.html", "posix.html", "site.html"} <= set(one)
    assert b"environ" in one["posix.html"]
    for url, body in one.items():
        assert not [
            value
            for value in (b"secret-", str(tmp_path).encode(), b"groundup-pydoc-")
            if value in body
        ], url
    assert {url for url in one | other if one.get(url) != other.get(url)} == set()


def test_packages_of_the_user_are_found_though_the_home_is_another(tmp_path, monkeypatch):
    monkeypatch.setattr("site.ENABLE_USER_SITE", True)
    monkeypatch.setattr("site.USER_BASE", str(tmp_path))
    assert _of_host()["PYTHONUSERBASE"] == str(tmp_path)
    monkeypatch.setattr("site.ENABLE_USER_SITE", False)
    assert "PYTHONUSERBASE" not in _of_host()


def test_a_page_that_hangs_or_kills_its_server_costs_that_page_alone(tmp_path, monkeypatch):
    (tmp_path / "hangs.py").write_text("import time\nprint(input, flush=True)\ntime.sleep(1000)\n")
    (tmp_path / "dies.py").write_text("import os\nos.abort()\n")
    (tmp_path / "asks.py").write_text(
        "'Reads standard input when it is imported.'\n"
        "try:\n    input()\nexcept EOFError:\n    pass\n"
    )
    (tmp_path / "fine.py").write_text(
        "'A module that is fine.'\nimport sys\nprint('x' * 1_000_000)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def visit():
        outcomes = {}
        async with PydocFetcher("test", 2, 1) as fetcher:
            for name in ("hangs", "fine", "dies", "asks", "fine"):
                try:
                    outcomes[name] = (
                        await fetcher.get(f"{ORIGIN}/{name}.html", 1 << 20, HTML)
                    ).body
                except FetchError as error:
                    outcomes[name] = error.reason
        return outcomes

    outcomes = asyncio.run(visit())
    assert (outcomes["hangs"], outcomes["dies"]) == ("timeout", "connection")
    assert b"<title>Pydoc: module fine" in outcomes["fine"]
    assert b"<title>Pydoc: module asks" in outcomes["asks"]


def test_modules_that_kill_their_server_neither_slow_the_others_down_nor_end_the_crawl(
    run, tmp_path, monkeypatch
):
    names = [f"dies{n}" for n in range(9)]  # one more than a host may fail in a row
    for name in names:
        (tmp_path / f"{name}.py").write_text("import os\nos._exit(1)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("stages.crawl.config.installed_version", lambda package: "1")
    monkeypatch.setattr("stages.crawl.hosts.FIRST_WAIT", 600)
    only = rf"^(?!(?:index|topics|keywords|json|{'|'.join(names)})$)"
    artifact = crawl_some(run, servers=1, limits={"max_depth": 1}, packages=names, skip=[only])
    failed = artifact.read("failures").to_pylist()
    assert {row["url"]: row["reason"] for row in failed} == {
        f"{ORIGIN}/{name}.html": "connection" for name in names
    }
    assert f"{ORIGIN}/json.html" in artifact.read("documents", ["url"]).column(0).to_pylist()


def test_an_extension_module_has_its_page_more_than_once():
    async def visit():
        async with PydocFetcher("test", 30, 1) as fetcher:
            return [
                (await fetcher.get(f"{ORIGIN}/{name}.html", 8 << 20, HTML)).body
                for name in ("numpy.fft", "numpy.linalg")
            ]

    assert all(b"Pydoc: Error" not in body[:300] for body in asyncio.run(visit()))


WAIT = """
import asyncio, sys
from pathlib import Path
from stages.crawl.pydoc_source import PydocFetcher
from stages.documentation_server import ORIGIN

async def wait():
    async with PydocFetcher("test", 60, 1) as fetcher:
        Path(sys.argv[1]).touch()
        await fetcher.get(f"{ORIGIN}/hangs.html", 1 << 20, {"text/html"})

asyncio.run(wait())
"""


def test_a_server_that_hangs_ends_when_the_crawl_is_killed(tmp_path, monkeypatch, servers):
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(1000)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    up, until = tmp_path / "up", time.monotonic() + 300
    process = subprocess.Popen([sys.executable, "-c", WAIT, str(up)])
    while not up.exists() and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.3)  # the page is being imported
    assert servers() == 1
    process.kill()
    process.wait()
    while servers() and time.monotonic() < until:
        time.sleep(0.02)
    assert servers() == 0


def test_the_identity_has_the_versions_of_python_and_of_the_packages():
    def identity(**changes):
        return (
            stages.stage("crawl")
            .config_class.parse({"sources": [{"kind": "pydoc"} | changes]}, "crawl")
            .identity()["sources"][0]
        )

    assert identity()["python"] == platform.python_version()
    assert identity(packages=["sklearn"])["versions"]["sklearn"].count(".") >= 2
    with pytest.raises(InputError, match="package 'scikit-learn': is not installed"):
        identity(packages=["scikit-learn"])
