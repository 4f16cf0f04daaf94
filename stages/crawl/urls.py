"""One spelling per address, so that a page is visited once however it is linked.

Follows RFC 3986 section 6.2 (case, percent-encoding, dot segments, default ports), and sorts the
parts of the query as other crawlers do.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urljoin, urlsplit

MAX_CHARACTERS = 2000  # beyond this an address is a trap or an attack, not a page

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH = _UNRESERVED | frozenset("!$&'()*+,;=:@/")
_QUERY = _PATH | frozenset("?")
_PORTS = {"http": 80, "https": 443}
_DROPPED = re.compile(r"[\t\n\r]")
_PERCENT = re.compile(r"%([0-9A-Fa-f]{2})")


def canonical(address: str, base: str | None = None) -> str:
    """Return the one spelling of `address`, relative to `base` if that is given.

    canonical(canonical(x)) == canonical(x).

    Raises:
        ValueError: It is not http or https, has no host, holds a password, or is too long.
    """
    address = _DROPPED.sub("", address.strip())
    parts = urlsplit(urljoin(base, address) if base else address)
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise ValueError(f"is not an http or https address: {address[:80]!r}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("has a user name or password in it")
    host = _host(parts)
    port = ""
    if parts.port not in (None, _PORTS[scheme]):
        port = f":{parts.port}"
    path = _without_dots(_encoded(parts.path, _PATH) or "/")
    query = _sorted_query(_encoded(parts.query, _QUERY))
    whole = f"{scheme}://{host}{port}{path}{query}"
    if len(whole) > MAX_CHARACTERS:
        raise ValueError(
            f"has {len(whole)} characters; more than {MAX_CHARACTERS} are not followed"
        )
    return whole


def _sorted_query(query: str) -> str:
    """Return the parts of a query in order, after a question mark; "" if there are none."""
    parts = sorted(filter(None, query.split("&")))
    return f"?{'&'.join(parts)}" if parts else ""


def origin(address: str) -> str:
    """scheme://host[:port] of a canonical address, to which robots.txt and pauses apply."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def host_and_port(address: str) -> tuple[str, int]:
    """Return host (an IPv6 address without brackets) and port of a canonical address."""
    parts = urlsplit(address)
    return str(parts.hostname), parts.port or _PORTS[parts.scheme]


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").rstrip(".")
    if not host:
        raise ValueError("has no host")
    if ":" in host:
        return f"[{host}]"
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii").lower()
        except UnicodeError as error:
            raise ValueError(f"has a host name that is not allowed: {error}") from None
    if not re.fullmatch(r"[a-z0-9._-]+", host):
        raise ValueError(f"has a host name that is not allowed: {host[:80]!r}")
    return host


def _encoded(text: str, allowed: frozenset[str]) -> str:
    """Percent-encode, in upper case, only what must be encoded."""

    def shortest(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if character in _UNRESERVED else match[0].upper()

    text = _PERCENT.sub(shortest, text)
    out = []
    for position, character in enumerate(text):
        is_encoded = character == "%" and _PERCENT.match(text, position)
        if character in allowed or is_encoded:
            out.append(character)
            continue
        for byte in character.encode("utf-8", "surrogatepass"):
            out.append(f"%{byte:02X}")  # noqa: PERF401 -- the loop around it appends, too
    return "".join(out)


def _without_dots(path: str) -> str:
    """Remove dot segments, as RFC 3986 section 5.2.4 says."""
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments[1:]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
