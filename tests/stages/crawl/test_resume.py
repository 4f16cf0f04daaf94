"""A crawl that is killed or stopped continues where it was."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web

import stages
from data_contracts import Interrupted, Store
from stages.run import run_stage

pytestmark = pytest.mark.slow

PAGES = 80
AT_ONCE = 4

CRAWL = """
import json, sys
import stages
from data_contracts import Interrupted, Store
from stages.run import run_stage
stage = stages.stage("crawl")
try:
    config = stage.config_class.parse(json.loads(sys.argv[2]), "crawl")
    run_stage(Store(sys.argv[1]), stage, config, {})
except Interrupted as error:
    print(error)
    sys.exit(3)
"""


@pytest.fixture
def web_of_pages(site):
    """PAGES pages, each linked from several others, one of them moved.

    `site.kill` = (request number, signal) ends a process.
    """
    site.strike = {}

    async def answer(request):
        if (blow := site.strike.pop(len(site.asked), None)) is not None:
            os.kill(*blow)
        await asyncio.sleep(0.005)
        n = int(request.path[1:] or 0)
        if n == 7:
            return web.Response(status=301, headers={"Location": "/70"})
        return web.Response(
            text="".join(f'<a href="/{m % PAGES}">' for m in (n + 1, n * 2, n * 3 + 1)),
            content_type="text/html",
        )

    for n in range(PAGES):
        site.handlers[f"/{n}"] = answer
    site.handlers["/"] = answer
    return site


def start(store: Path, settings: dict) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CRAWL, str(store), json.dumps(settings)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(store: Path, settings: dict):
    stage = stages.stage("crawl")
    return run_stage(Store(store), stage, stage.config_class.parse(settings, "crawl"), {})[0]


@pytest.mark.parametrize(
    "at", [pytest.param(2, marks=pytest.mark.slow), 33, pytest.param(75, marks=pytest.mark.slow)]
)
def test_killed_at_any_page_it_fetches_nothing_twice_but_what_was_in_flight_and_ends_the_same(
    web_of_pages, source, tmp_path, at
):
    site, settings = web_of_pages, source(per_host=AT_ONCE)
    whole = finish(tmp_path / "whole", settings)
    site.log.clear()
    process = start(tmp_path / "killed", settings)
    site.strike[at] = (process.pid, signal.SIGKILL)
    assert process.wait(300) == -signal.SIGKILL
    before = Counter(site.asked)
    resumed = finish(tmp_path / "killed", settings)
    twice = [path for path, times in Counter(site.asked).items() if times > 1]
    assert len(twice) <= AT_ONCE
    assert max(before.values()) == 1
    assert max(Counter(site.asked).values()) <= 2
    columns = ["id", "url", "body", "depth", "redirects"]
    assert resumed.read("documents", columns).equals(whole.read("documents", columns))
    assert whole.rows("documents") == PAGES  # / and /0 are two addresses, /7 leads to /70
    resumed.verify()


def test_a_torn_journal_line_and_a_torn_archive_cost_only_the_pages_they_were_about(
    web_of_pages, source, tmp_path
):
    site, settings = web_of_pages, source(per_host=AT_ONCE)
    process = start(tmp_path / "store", settings)
    site.strike[40] = (process.pid, signal.SIGKILL)
    process.wait(300)
    (scratch,) = (tmp_path / "store" / "drafts").glob("*/scratch")
    archive, journal = scratch / "site-00000.warc.gz", scratch / "site.jsonl"
    os.truncate(archive, archive.stat().st_size - 5)
    with journal.open("ab") as file:
        file.write(b'{"kind":"page","url":"htt')
    site.log.clear()
    artifact = finish(tmp_path / "store", settings)
    assert artifact.rows("documents") == PAGES
    assert len(site.asked) < PAGES - 40 + 2 * AT_ONCE + 2


def test_asked_to_stop_it_says_so_and_the_next_run_continues(web_of_pages, source, tmp_path):
    site, settings = web_of_pages, source(per_host=AT_ONCE)
    process = start(tmp_path / "store", settings)
    site.strike[20] = (process.pid, signal.SIGTERM)
    output, trouble = process.communicate(timeout=300)
    assert (process.returncode, trouble) == (3, "")
    assert "all of them are kept" in output
    assert not list((tmp_path / "store" / "objects").glob("*/*"))
    artifact = finish(tmp_path / "store", settings)
    assert artifact.rows("documents") == PAGES
    assert len(site.asked) <= PAGES + 1 + AT_ONCE


def test_interrupted_is_what_the_error_is_called(web_of_pages, source, tmp_path):
    web_of_pages.strike[10] = (os.getpid(), signal.SIGINT)
    with pytest.raises(Interrupted, match="stopped by a signal after"):
        finish(tmp_path / "store", source(per_host=1))
