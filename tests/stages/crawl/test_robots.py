"""What robots.txt and pages ask of robots, without a server."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from stages.crawl import page, robots
from stages.crawl.fetch import HttpResponse


def answer(url="https://example.org/", status=200, headers=(), body=b""):
    return HttpResponse(url, status, "", tuple(headers), (), body, False, datetime.now(UTC))


@pytest.mark.parametrize("to", ["http://example.org/robots.txt", "mailto:webmaster@example.org"])
def test_robots_txt_is_not_read_where_no_page_would_be(to):
    asked = []

    async def get(url):
        asked.append(url)
        return answer(url, 301, [("Location", to)])

    rules, answers = asyncio.run(robots.read(get, "https://example.org"))
    assert rules.refusal.reason == "redirect_refused"
    assert asked == ["https://example.org/robots.txt"]
    assert len(answers) == 1


def page_facts(*headers, meta=None):
    """What a page with one link states.

    headers: Values of X-Robots-Tag.
    meta: Content of <meta name=robots>.
    """
    head = f"<meta name=robots content='{meta}'>" if meta else ""
    tags = [("Content-Type", "text/html"), *(("X-Robots-Tag", value) for value in headers)]
    return page.read(answer(headers=tags, body=f"{head}<a href=/a>a</a>".encode()))


@pytest.mark.parametrize(
    ("value", "opt_out"),
    [
        ("index, follow, max-image-preview:none", None),
        ("max-image-preview : none , max-snippet: 20", None),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST, noindex", "noindex"),
        ("NoIndex,NoAI", "noai, noindex"),
        ("noindex nofollow", "noindex"),
        ("none", "none"),
        ("noindexing", None),
    ],
)
def test_a_page_opts_out_by_whole_directives(value, opt_out):
    assert page_facts(value).opt_out == opt_out
    assert page_facts(meta=value).opt_out == opt_out


@pytest.mark.parametrize(
    ("headers", "opt_out"),
    [
        (["otherbot: noindex"], None),
        (["otherbot: nofollow, noindex"], None),
        (["otherbot: nofollow", "noindex"], "noindex"),
        (["otherbot: noindex, groundup: noai"], "noai"),
        (["groundup: noindex, noai"], "noai, noindex"),
    ],
)
def test_what_a_header_says_to_another_robot_is_not_for_us(headers, opt_out):
    assert page_facts(*headers).opt_out == opt_out


@pytest.mark.parametrize(
    ("value", "followed"),
    [
        ("noindex, follow", True),
        ("noai", True),
        ("nofollow", False),
        ("noindex, nofollow", False),
        ("none", False),
    ],
)
def test_links_are_followed_unless_the_page_says_nofollow(value, followed):
    for said in (page_facts(value), page_facts(meta=value)):
        assert said.links == (("https://example.org/a",) if followed else ())
