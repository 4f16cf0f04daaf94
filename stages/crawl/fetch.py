"""One request, one answer, under a total deadline and a size limit. Redirects are answers: the crawl decides about them."""

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
class Answer:
    """A response. body is what came after transfer and content decoding, cut at the limit; empty if it was not wanted."""

    url: str
    status: int
    phrase: str
    headers: tuple[tuple[str, str], ...]
    asked_with: tuple[tuple[str, str], ...]
    body: bytes
    truncated: bool
    began: datetime

    def header(self, name: str) -> str | None:
        """All values under `name`, joined as RFC 9110 section 5.3 says."""
        values = [value for key, value in self.headers if key.lower() == name]
        return ", ".join(values) if values else None

    @property
    def media_type(self) -> str:
        """Lower case, without parameters; what the first bytes look like if the server says nothing."""
        told = (self.header("content-type") or "").partition(";")[0].strip().lower()
        if told:
            return told
        start = self.body[:512].lstrip().lower()
        return (
            "text/html"
            if start.startswith((b"<!doctype html", b"<html"))
            else "application/octet-stream"
        )

    @property
    def charset(self) -> str | None:
        """What the server declared, which need not be true."""
        message = email.message.Message()
        message["content-type"] = self.header("content-type") or ""
        found = message.get_param("charset")
        return found.strip().lower()[:40] or None if isinstance(found, str) else None

    def evidence(self, meta_robots: str | None, license: str | None) -> dict[str, Any]:
        """The columns of a row of `documents` that tell what the page is, whenever it is asked for."""
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
        """The columns of a row of `fetches`: what may be another the next time, though the page is the same."""
        return {
            "fetched_at": self.began,
            "etag": self.header("etag"),
            "last_modified": self.header("last-modified"),
        }


class FetchError(Exception):
    """No answer that can be used. reason is one of the contract's; `again` says that a later try may do better,
    `of_page` that the host is not to blame.
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
        self.reason, self.detail, self.status, self.again, self.of_page = (
            reason,
            detail,
            status,
            again,
            of_page,
        )


class Fetcher(Protocol):
    """Where pages come from."""

    async def get(self, url: str, limit: int, wanted: Container[str] | None) -> Answer:
        """The answer to GET `url`, at most `limit` bytes of it; bodies of media types that are not `wanted` are not read.

        Raises FetchError.
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
    ) -> Answer:
        """See Fetcher. `at` is where to send the request, if that is not the place that `url` names."""
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
    ) -> Answer:
        headers = {"Host": URL(url, encoded=True).host or ""} if target != url else None
        async with self._session.get(
            URL(target, encoded=True), allow_redirects=False, headers=headers
        ) as response:
            answer = Answer(
                url=url,
                status=response.status,
                phrase=_text(response.reason or ""),
                headers=tuple((name, _text(value)) for name, value in response.headers.items()),
                asked_with=tuple(response.request_info.headers.items()),
                body=b"",
                truncated=False,
                began=datetime.now(UTC),
            )
            read = response.status == 200 and (
                wanted is None
                or answer.header("content-type") is None
                or answer.media_type in wanted
            )
            if not read:
                return answer
            body = bytearray()
            async for piece in response.content.iter_chunked(_CHUNK):
                body += piece
                if len(body) > limit:
                    break
            cut = len(body) > limit
            if cut:
                response.close()  # the rest may never end
            return Answer(**{**answer.__dict__, "body": bytes(body[:limit]), "truncated": cut})


def _text(told: str) -> str:
    """Bytes that are not UTF-8, which aiohttp keeps as surrogates, as U+FFFD: text that can be written anywhere."""
    return told.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def redirect_target(answer: Answer) -> str:
    """Where a redirect leads. Raises FetchError if that is no address, or leaves encryption."""
    location = answer.header("location") or ""
    try:
        found = canonical(location, answer.url)
    except ValueError as error:
        raise FetchError(
            "redirect_refused", f"to {location[:80]!r}, which {error}", answer.status
        ) from None
    if answer.url.startswith("https:") and not found.startswith("https:"):
        raise FetchError("redirect_refused", f"to {found}, which is not encrypted", answer.status)
    return found


def retry_after(answer: Answer, now: datetime) -> float | None:
    """Seconds that the server asks to wait (RFC 9110 section 10.2.3), or None."""
    value = (answer.header("retry-after") or "").strip()
    if re.fullmatch(r"[0-9]+", value):
        return float(value[:9])
    try:
        then = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # no date, or a year that no date has
        return None
    return max(0.0, ((then if then.tzinfo else then.replace(tzinfo=UTC)) - now).total_seconds())
