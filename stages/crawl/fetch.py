"""One request and its response, under a total deadline and a size limit.

A redirect is a response: the crawl decides whether to follow it.
"""

from __future__ import annotations

import asyncio
import email.utils
import re
from collections.abc import Container
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, Self

import aiohttp
from yarl import URL

from stages.crawl.addresses import Guard, NotPublicError
from stages.crawl.urls import canonical, host_and_port

REDIRECTS = frozenset({301, 302, 303, 307, 308})
TRY_LATER = frozenset({429, 503})
_CHUNK = 1 << 16


@dataclass(frozen=True)
class HttpResponse:
    """A response.

    Attributes:
        url: The canonical address that was asked for.
        status: The HTTP status.
        phrase: The words of the status line.
        headers: Names and values, in order.
        asked_with: The headers of the request.
        body: The bytes after transfer and content decoding, cut at the limit. Empty if not wanted.
        truncated: Whether the body was cut.
        began: When the request was made.
    """

    url: str
    status: int
    phrase: str
    headers: tuple[tuple[str, str], ...]
    asked_with: tuple[tuple[str, str], ...]
    body: bytes
    truncated: bool
    began: datetime

    def header(self, name: str) -> str | None:
        """Return all values under `name`, joined as RFC 9110 section 5.3 says."""
        values = [value for key, value in self.headers if key.lower() == name]
        return ", ".join(values) if values else None

    @property
    def media_type(self) -> str:
        """In lower case, without parameters; guessed from the first bytes if there is no header."""
        declared = (self.header("content-type") or "").partition(";")[0].strip().lower()
        if declared:
            return declared
        start = self.body[:512].lstrip().lower()
        if start.startswith((b"<!doctype html", b"<html")):
            return "text/html"
        return "application/octet-stream"

    @property
    def charset(self) -> str | None:
        """The character set that the server declares, which need not be true."""
        message = email.message.Message()
        message["content-type"] = self.header("content-type") or ""
        declared = message.get_param("charset")
        if not isinstance(declared, str):
            return None
        return declared.strip().lower()[:40] or None

    def evidence(self, meta_robots: str | None, license: str | None) -> dict[str, Any]:
        """Return the columns of a row of `documents` that describe the page at any time."""
        return {
            "media_type": self.media_type,
            "charset": self.charset,
            "truncated": self.truncated,
            "status": self.status,
            "x_robots_tag": self.header("x-robots-tag"),
            "meta_robots": meta_robots,
            "license": license,
        }

    @property
    def fetch(self) -> dict[str, Any]:
        """The columns of a row of `fetches`, which may differ the next time for the same page."""
        return {
            "fetched_at": self.began,
            "etag": self.header("etag"),
            "last_modified": self.header("last-modified"),
        }


class FetchError(Exception):
    """There is no response that can be used.

    Attributes:
        reason: One of the contract's reasons.
        detail: What exactly is wrong.
        status: The HTTP status, if there was a response.
        again: A later try may succeed.
        of_page: The page is at fault, not the host.
    """

    def __init__(
        self,
        reason: str,
        detail: str,
        status: int | None = None,
        *,
        again: bool = False,
        of_page: bool = False,
    ):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.status = status
        self.again = again
        self.of_page = of_page


class Fetcher(Protocol):
    """Where pages come from."""

    async def get(self, url: str, limit: int, wanted: Container[str] | None) -> HttpResponse:
        """Return the response to GET `url`.

        Args:
            url: A canonical address.
            limit: Bytes of the body after which it is cut.
            wanted: Media types whose bodies are read; None for all.

        Raises:
            FetchError: There is no response that can be used.
        """


class WebFetcher:
    """Fetches over the network. Use as an asynchronous context manager."""

    def __init__(
        self, agent: str, deadline: float, connections: int, allowed: set[tuple[str, int]]
    ):
        self._guard, self._deadline = Guard(allowed), deadline
        self._headers = {
            "User-Agent": agent,
            "Accept": "text/html,application/xhtml+xml,text/*;q=0.9,*/*;q=0.1",
        }
        self._connections = connections

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=self._connections, resolver=self._guard)
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(
        self, url: str, limit: int, wanted: Container[str] | None, at: str | None = None
    ) -> HttpResponse:
        """See Fetcher. `at` is where to send the request, if not to `url` itself."""
        target = at or url
        try:
            self._guard.check_literal(*host_and_port(target))
            async with asyncio.timeout(self._deadline):
                return await self._get(url, target, limit, wanted)
        except NotPublicError as error:
            raise FetchError("address_refused", str(error)) from None
        except TimeoutError:
            raise FetchError("timeout", f"no complete answer in {self._deadline:g} s") from None
        except aiohttp.ClientConnectorDNSError as error:
            if isinstance(error.os_error, NotPublicError):
                raise FetchError("address_refused", str(error.os_error)) from None
            raise FetchError(
                "connection", f"the name {error.host} does not resolve: {error.os_error}"
            ) from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise FetchError(
                "connection", f"the certificate is not valid: {error.certificate_error}"
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FetchError(
                "connection", f"{type(error).__name__}: {error}"[:300], again=True
            ) from None

    async def _get(
        self, url: str, target: str, limit: int, wanted: Container[str] | None
    ) -> HttpResponse:
        headers = {"Host": URL(url, encoded=True).host or ""} if target != url else None
        async with self._session.get(
            URL(target, encoded=True), allow_redirects=False, headers=headers
        ) as reply:
            response = HttpResponse(
                url=url,
                status=reply.status,
                phrase=_text(reply.reason or ""),
                headers=tuple((name, _text(value)) for name, value in reply.headers.items()),
                asked_with=tuple(reply.request_info.headers.items()),
                body=b"",
                truncated=False,
                began=datetime.now(UTC),
            )
            is_wanted = (
                wanted is None
                or response.header("content-type") is None
                or response.media_type in wanted
            )
            if reply.status != 200 or not is_wanted:
                return response
            body = bytearray()
            async for piece in reply.content.iter_chunked(_CHUNK):
                body += piece
                if len(body) > limit:
                    break
            cut = len(body) > limit
            if cut:
                reply.close()  # the rest may never end
            return HttpResponse(
                **{**response.__dict__, "body": bytes(body[:limit]), "truncated": cut}
            )


def _text(header: str) -> str:
    """Replace the surrogates that aiohttp makes of bytes that are not UTF-8 by U+FFFD."""
    return header.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def redirect_target(response: HttpResponse) -> str:
    """Return where a redirect leads.

    Raises:
        FetchError: It leads to no address that can be fetched, or from https to http.
    """
    location = response.header("location") or ""
    try:
        found = canonical(location, response.url)
    except ValueError as error:
        raise FetchError(
            "redirect_refused", f"to {location[:80]!r}, which {error}", response.status
        ) from None
    if response.url.startswith("https:") and not found.startswith("https:"):
        raise FetchError("redirect_refused", f"to {found}, which is not encrypted", response.status)
    return found


def retry_after(response: HttpResponse, now: datetime) -> float | None:
    """Return the seconds that the server asks to wait (RFC 9110 section 10.2.3), or None."""
    value = (response.header("retry-after") or "").strip()
    if re.fullmatch(r"[0-9]+", value):
        return float(value[:9])
    try:
        then = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # no date, or a year that no date has
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - now).total_seconds())
