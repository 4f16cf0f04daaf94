"""A real web server on loopback that behaves as badly as a test asks, and logs its requests."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from stages.config import Settings
from stages.crawl.config import FilesSource, WebSource


def grouped(source: type[Settings], flat: dict[str, Any]) -> dict[str, Any]:
    """Settings of a source, each in the group that it belongs to."""
    found: dict[str, Any] = {}
    for name, value in flat.items():
        group, dot, key = source.RENAMED.get(name, name).partition(".")
        if dot:
            found.setdefault(group, {})[key] = value
        else:
            found[name] = value
    return found


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """Pages by path. `log` has (path with query, monotonic time) of every request, in order."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.log: list[tuple[str, float]] = []
        self.headers: list[dict[str, str]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[str]:
        return [path for path, _ in self.log if path != "/robots.txt"]

    def page(self, path: str, *links: str, text: str = "", head: str = "", **response: Any) -> None:
        """An HTML page with links; `response` goes to the aiohttp Response."""
        body = f"<html><head>{head}</head><body><p>Page {path} {text}</p>" + "".join(
            f'<a href="{link}">x</a>' for link in links
        )
        options = {"body": body.encode(), "content_type": "text/html"} | response
        if "headers" in options and "Content-Type" in options["headers"]:
            del options["content_type"]

        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(**options)

        self.handlers[path] = answer

    def redirect(self, path: str, to: str, status: int = 302) -> None:
        self.page(path, status=status, headers={"Location": to})

    def raw(self, path: str, answer: bytes) -> None:
        """An answer byte for byte, as no library would send it."""

        async def send(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            request.transport.write(answer)
            request.transport.close()
            return web.Response()

        self.handlers[path] = send

    def robots(self, text: str | bytes, status: int = 200) -> None:
        body = text.encode() if isinstance(text, str) else text
        self.page("/robots.txt", body=body, status=status, content_type="text/plain")

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        async def dispatch(request: web.BaseRequest) -> web.StreamResponse:
            assert isinstance(request, web.BaseRequest)
            self.log.append((request.path_qs, time.monotonic()))
            self.headers.append(dict(request.headers))
            handler = self.handlers.get(request.path_qs) or self.handlers.get(request.path)
            if handler is None:
                return web.Response(status=404)
            return await handler(request)  # type: ignore[arg-type]

        self._runner = web.ServerRunner(web.Server(dispatch), shutdown_timeout=0.1)
        await self._runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        await web.SockSite(self._runner, listener).start()


@pytest.fixture
def site() -> Iterator[Site]:
    served = Site()
    served.start()
    yield served
    served.stop()


@pytest.fixture
def source(site: Site) -> Callable[..., dict[str, Any]]:
    """Settings of a fast crawl of `site`, from /, with changes."""

    def settings(**changes: Any) -> dict[str, Any]:
        fast = {
            "kind": "web",
            "name": "site",
            "seeds": [f"{site.origin}/"],
            "allow_origins": [site.origin],
            "contact": "test@example.org",
            "delay_seconds": 0,
            "timeout_seconds": 5,
            "per_host": 4,
        }
        return {"sources": [grouped(WebSource, fast | changes)]}

    return settings


@pytest.fixture
def crawl(run: Callable[..., Any], source: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """crawl(max_depth=1) → the artifact."""
    return lambda **changes: run("crawl", source(**changes))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "in"
    path.mkdir()
    return path


@pytest.fixture
def read(run, folder):
    def go(*patterns, **settings):
        paths = [str(folder / pattern) for pattern in patterns or ("",)]
        source = {"kind": "files", "name": "mine", "paths": paths} | settings
        return run("crawl", {"sources": [grouped(FilesSource, source)]})

    return go
