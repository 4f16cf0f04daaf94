from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.crawl.addresses import is_public
from stages.crawl.urls import MAX_CHARACTERS, canonical, host_and_port, origin


@pytest.mark.parametrize(
    ("spelt", "wanted"),
    [
        ("HTTP://Example.ORG:80", "http://example.org/"),
        ("https://example.org.:443/a", "https://example.org/a"),
        ("https://example.org:8443/", "https://example.org:8443/"),
        ("http://example.org/a/./b/../../c#d", "http://example.org/c"),
        ("http://example.org/../../a/..", "http://example.org/"),
        ("http://example.org/%7euser/%2f%c3%a9 é", "http://example.org/~user/%2F%C3%A9%20%C3%A9"),
        ("http://example.org/?b=2&a=1&&a=0", "http://example.org/?a=0&a=1&b=2"),
        ("http://example.org/?", "http://example.org/"),
        (" http://example.org/a\n b ", "http://example.org/a%20b"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://[::1]:8000/", "http://[::1]:8000/"),
        ("http://example.org/100%", "http://example.org/100%25"),
        ("http://example.org/case/Matters//", "http://example.org/case/Matters//"),
    ],
)
def test_every_spelling_has_one_form(spelt, wanted):
    assert canonical(spelt) == wanted


@pytest.mark.parametrize(
    "refused",
    [
        "ftp://example.org/",
        "mailto:a@b",
        "file:///etc/passwd",
        "http://",
        "http://user:secret@example.org/",
        "http://a b/",
        "http://a:99999/",
        "",
    ],
)
def test_what_cannot_be_fetched_is_refused(refused):
    with pytest.raises(ValueError, match=r"."):
        canonical(refused)


def test_an_address_without_end_is_refused():
    with pytest.raises(ValueError, match="characters"):
        canonical("http://example.org/" + "a/" * MAX_CHARACTERS)


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=20))
def test_the_canonical_form_is_its_own_canonical_form(path, query):
    try:
        once = canonical(f"http://example.org/{path}?{query}", "http://example.org/x/y")
    except ValueError:
        return
    assert canonical(once) == once
    assert once.isascii()


def test_origin_and_port_of_an_address():
    assert origin("https://example.org:8443/a?b") == "https://example.org:8443"
    assert host_and_port("http://[::1]/") == ("::1", 80)
    assert host_and_port("https://example.org/") == ("example.org", 443)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::a9fe:a9fe",
        "::ffff:169.254.169.254",
    ],
)
def test_addresses_that_are_not_of_the_public_internet_are_refused(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_are_not(address):
    assert is_public(address)
