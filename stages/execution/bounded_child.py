"""A child process that answers requests, one line of JSON each, within limits that it sets itself.

It runs a single Python file, which imports nothing of groundup and holds itself to the limits that
it is given. Whatever it does with the code or the data of a stranger ends this process at worst.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any


class BoundedChild:
    """One running child process."""

    def __init__(
        self,
        script: Path,
        limits: Mapping[str, float],
        environment: Mapping[str, str],
        log: IO[bytes] | int = subprocess.DEVNULL,
    ):
        """Start it.

        Args:
            script: The Python file to run. Its argument is `limits` as JSON.
            limits: The limits that it sets for itself.
            environment: Its environment. It inherits nothing.
            log: Where its standard error goes.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-B", str(script), json.dumps(limits)],
            env=environment,
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Return the reply to a request; None if the process ended before it replied."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            line = self.read_line()
        except BrokenPipeError:
            return None
        except BaseException:  # half a reply would remain in the pipe
            self.end()
            raise
        return json.loads(line) if line.endswith(b"\n") else None

    def read_line(self) -> bytes:
        """Return the next line of its standard output; without a line end if the process ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def wait(self) -> int:
        """Wait for the process to end. Returns its exit status, or minus the number of a signal."""
        return self._process.wait()

    def kill(self) -> None:
        """Stop the process at once, so that whoever waits for a reply goes on."""
        self._process.kill()

    def end(self) -> None:
        """Stop the process and close its pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
