"""Python's documentation server as a web site: several processes behind http://pydoc.localhost.

The server answers one request at a time, and a page imports the module that it describes. So a page
may hang, or crash the server. Such a server is replaced, and the page is a failure like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import os
import re
import signal
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Container
from pathlib import Path
from typing import Self

from data_contracts import InputError
from stages.config import any_found
from stages.crawl.config import PydocSource
from stages.crawl.fetch import FetchError, HttpResponse, WebFetcher
from stages.documentation_server import ORIGIN

SEEDS = [f"{ORIGIN}/{page}.html" for page in ("index", "topics", "keywords")]
_STARTS_WITHIN = 30.0  # seconds
# Variables without which a server may not start, or not find modules.
_OF_HOST = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")
_ERROR_PAGE = re.compile(rb"<title>Pydoc: Error - [^<]*</title>")
_PAGE = re.compile(re.escape(ORIGIN) + r"/(?:(?P<module>[A-Za-z_][\w.]*)\.html|topic\?key=[\w.%]+)")


class Scope:
    """Modules of the standard library and the listed packages without `skip`, and help topics."""

    def __init__(self, source: PydocSource):
        self._names = (
            sys.stdlib_module_names | set(source.packages) | {"index", "topics", "keywords"}
        )
        self._skip = source.skip

    def __call__(self, url: str) -> bool:
        match = _PAGE.fullmatch(url)
        if match is None:
            return False
        module = match["module"]
        if module is None:  # a help topic
            return True
        is_known = module.partition(".")[0] in self._names
        return is_known and not any_found(self._skip, module)


def refusal(response: HttpResponse) -> str | None:
    """Return the error that a page shows: pydoc sends errors with status 200."""
    if not _ERROR_PAGE.search(response.body[:1024]):
        return None
    start = response.body.rfind(b"Error</strong>") + 14
    text = re.sub(rb"<[^>]*>", b" ", response.body[start:]).decode("utf-8", "replace")
    return "pydoc answers with an error: " + " ".join(html.unescape(text).split())[:300]


class Server:
    """One documentation server in a separate process group."""

    def __init__(self, folder: Path, number: int):
        folder = folder.resolve()
        self._out = folder / f"server-{number}.txt"
        shown = _shown(folder)
        with self._out.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("pydoc_server.py")), *shown],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=_of_host() | shown,
                start_new_session=True,
            )
        self.number, self.port = number, 0

    async def ready(self) -> None:
        """Wait until the server answers.

        Raises:
            InputError: It does not start; the message has its output.
        """
        until = time.monotonic() + _STARTS_WITHIN
        while time.monotonic() < until and self._process.poll() is None:
            match = re.match(rb"port (\d+)\n", self._out.read_bytes()[:64])
            if match:
                self.port = int(match[1])
                return
            await asyncio.sleep(0.02)
        output = self._out.read_bytes()[-300:].decode("utf-8", "replace").strip()
        raise InputError(
            "pydoc server",
            f"did not start within {_STARTS_WITHIN:g} s: {output}",
            f"try: {sys.executable} -m pydoc -p 0",
        )

    async def is_dying(self) -> bool:
        """Return whether the process ends within half a second: a crash takes time to show."""
        for _ in range(25):
            if self._process.poll() is not None:
                return True
            await asyncio.sleep(0.02)
        return False

    def kill(self) -> None:
        """Kill the server and all processes that its pages started."""
        with contextlib.suppress(ProcessLookupError):  # nothing of the group is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def _of_host() -> dict[str, str]:
    """Return the variables that a server needs to start. It deletes them before it shows a page."""
    needed = {name: os.environ[name] for name in _OF_HOST if name in os.environ}
    # The server has another home folder, and `pip install --user` installs below the user's.
    if site.ENABLE_USER_SITE:
        needed["PYTHONUSERBASE"] = site.getuserbase()
    return needed


def _shown(folder: Path) -> dict[str, str]:
    """Return the environment that modules see and pages print, without anything of the user.

    It fixes the order of sets and the number of threads, so that pages differ as little as possible
    between runs and machines.
    """
    return {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "PATH": os.defpath,
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONUTF8": "1",
        "PYTHONHASHSEED": "0",
        "MPLBACKEND": "Agg",
        "TERM": "dumb",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "80",
    }


class PydocFetcher:
    """Sends each request to a free server.

    Use as an asynchronous context manager, which ends all servers.
    """

    def __init__(self, agent: str, deadline: float, servers: int):
        self._allowed: set[tuple[str, int]] = set()
        self._web = WebFetcher(agent, deadline, servers, self._allowed)
        self._count = servers
        self._running: set[Server] = set()
        self._free: asyncio.Queue[Server] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(
            prefix="groundup-pydoc-", ignore_cleanup_errors=True
        )
        try:
            await self._web.__aenter__()
            for number in range(self._count):
                self._free.put_nowait(await self._start(number))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._web.__aexit__()
        for server in self._running:
            server.kill()
        self._running.clear()
        self._folder.cleanup()

    async def get(self, url: str, limit: int, wanted: Container[str] | None) -> HttpResponse:
        """See Fetcher. A server that failed is replaced before the next request."""
        server = await self._free.get()
        try:
            at = f"http://127.0.0.1:{server.port}{url.removeprefix(ORIGIN)}"
            response = await self._web.get(url, limit, wanted, at)
            # pydoc sends the headers before it imports the module.
            if not response.body and await server.is_dying():
                raise FetchError("connection", "importing the module ended the server")
            return response
        except FetchError as error:
            server = await self._replace(server)
            raise FetchError(
                error.reason,
                f"{error.detail}; the server was started anew",
                error.status,
                of_page=True,
            ) from None
        finally:
            self._free.put_nowait(server)

    async def _start(self, number: int) -> Server:
        server = Server(Path(self._folder.name), number)
        self._running.add(server)
        await server.ready()
        self._allowed.add(("127.0.0.1", server.port))
        return server

    async def _replace(self, server: Server) -> Server:
        self._allowed.discard(("127.0.0.1", server.port))
        self._running.discard(server)
        server.kill()
        return await self._start(server.number)
