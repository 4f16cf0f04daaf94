from __future__ import annotations

from datetime import UTC, datetime

import pytest

from stages.crawl.fetch import HttpResponse, retry_after
from stages.crawl.hosts import Host
from stages.crawl.robots import Refusal, RobotsRules

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
        ("\u00b2", None),
        ("\u0663", None),
        ("-5", None),
        ("soon", None),
        ("Fri, 01 Jan 99999999999 00:00:00 GMT", None),
        ("9" * 400, 999_999_999.0),
    ],
)
def test_a_wish_to_wait_is_understood_or_ignored_and_never_an_error(value, seconds):
    answer = HttpResponse(
        "http://example.org/", 503, "", (("Retry-After", value),), (), b"", False, NOW
    )
    assert retry_after(answer, NOW) == seconds


def test_every_address_of_a_refused_host_has_an_error_of_its_own():
    host = Host(
        "http://example.org",
        0,
        1,
        0.0,
        rules=RobotsRules("absent", refusal=Refusal("robots", "why", 503)),
    )
    one, other = host.refusal("http://example.org/1"), host.refusal("http://example.org/2")
    assert one is not other
    assert (one.reason, one.detail, one.status) == ("robots", "why", 503)
