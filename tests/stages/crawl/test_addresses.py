from __future__ import annotations

import asyncio

import pytest

from stages.crawl.addresses import Guard, NotPublicError


def check(host, allowed=()):
    async def inside():  # the guard's resolver wants a running loop
        Guard(set(allowed)).check_literal(host, 80)

    asyncio.run(inside())


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "2130706433",
        "0177.0.0.1",
        "0x7f.1",
        "0x7f000001",
        "8.8",
        "1.2.3.4.5",
        "::1%",
        "127.0.0.1",
    ],
)
def test_hosts_that_look_like_addresses_must_be_written_as_one_and_be_public(host):
    with pytest.raises(NotPublicError, match=host):
        check(host)
    check(host, {(host, 80)})  # who names it in allow_origins means it


@pytest.mark.parametrize(
    "host",
    [
        "8.8.8.8",
        "2606:4700::1111",
        "example.org",
        "1.example.org",
        "0x7f.example",
        "3com.com",
        "1e100.net",
        "cafe",
    ],
)
def test_public_addresses_and_names_are_left_to_the_resolver(host):
    check(host)
