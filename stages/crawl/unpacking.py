"""Opening files that may be packed, with bounds on the unpacked size and the length of a line.

A megabyte of gzip may unpack to a gigabyte, but no real corpus does: text shrinks to a tenth of its
size, logs to a fiftieth.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO

from data_contracts import InputError
from data_contracts.regular_files import open_regular

MAX_RATIO = 200  # a packed file may unpack to this many times its size
ALWAYS_BYTES = 256 << 20  # … or to this many bytes, if that is more
_GZIP = b"\x1f\x8b"
_BUFFER = 1 << 16


class Bound:
    """Counts the bytes that a file unpacks to."""

    def __init__(self, path: Path):
        self.path = path
        self.size = path.stat().st_size
        self.max_bytes = max(ALWAYS_BYTES, MAX_RATIO * self.size)
        self.bytes = 0

    def add(self, count: int) -> None:
        """Count more bytes.

        Raises:
            InputError: The file unpacks to more than text would.
        """
        self.bytes += count
        if self.bytes > self.max_bytes:
            times = self.bytes // max(self.size, 1)
            why = (
                f"unpacks to more than {self.max_bytes >> 20:,} MB, {times:,} times its size;"
                " no text packs so well"
            )
            fix = (
                "leave it out of crawl.sources; if you know what it is, unpack it and name what"
                " comes out"
            )
            raise InputError(str(self.path), why, fix)


def opened(path: Path) -> IO[bytes]:
    """Return the bytes of a file, those of a `.gz` unpacked."""
    return _unpacked(path) if path.suffix.lower() == ".gz" else open_regular(path)


def opened_by_content(path: Path) -> BufferedReader:
    """Return the bytes of a file, unpacked if its content is gzip, whatever its name says."""
    with open_regular(path) as file:
        packed = file.read(2) == _GZIP
    return _unpacked(path) if packed else open_regular(path)


def begins_packed(file: BufferedReader) -> bool:
    """Return whether the bytes begin as those of gzip do. None is taken."""
    return file.peek(len(_GZIP)).startswith(_GZIP)


def lines(file: IO[bytes], longest: int) -> Iterator[bytes | None]:
    """Yield the lines of a file, with their ends.

    None stands for a line of more than `longest` bytes, which is skipped.
    """
    while line := file.readline(longest + 1):
        if len(line) <= longest:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(_BUFFER)
        yield None


def _unpacked(path: Path) -> BufferedReader:
    return BufferedReader(_Unpacked(path), _BUFFER)


class _Unpacked(io.RawIOBase):
    """Counts what gzip's reader returns, which is never more than was asked for."""

    def __init__(self, path: Path):
        self._bound = Bound(path)
        self._packed = open_regular(path)
        self._file = gzip.GzipFile(fileobj=self._packed, mode="rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        try:
            count = self._file.readinto(buffer)  # type: ignore[arg-type]
        except EOFError:  # which warcio takes for the end of the archive
            raise gzip.BadGzipFile("it was cut: it ends before its packed text does") from None
        self._bound.add(count)
        return count

    def close(self) -> None:
        self._file.close()
        self._packed.close()
        super().close()
