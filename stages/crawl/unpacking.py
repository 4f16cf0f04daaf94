"""Opening files that may be packed, within bounds: on what a file unpacks to, and on the length of a line.

A megabyte of gzip may stand for a gigabyte of text, and nobody's corpus does: text packs to a tenth, logs to a fiftieth.
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

MOST_TIMES = 200  # a packed file may unpack to so many times its size
ALWAYS_BYTES = 256 << 20  # … or to so many bytes, if that is more
_GZIP = b"\x1f\x8b"
_BUFFER = 1 << 16


class Bound:
    """Counts what a file unpacks to."""

    def __init__(self, path: Path):
        self.path = path
        self.size = path.stat().st_size
        self.most = max(ALWAYS_BYTES, MOST_TIMES * self.size)
        self.bytes = 0

    def add(self, count: int) -> None:
        """Raises InputError once it is more than any text would be."""
        self.bytes += count
        if self.bytes > self.most:
            times = self.bytes // max(self.size, 1)
            why = f"unpacks to more than {self.most >> 20:,} MB, {times:,} times its size; no text packs so well"
            fix = "leave it out of crawl.sources; if you know what it is, unpack it and name what comes out"
            raise InputError(str(self.path), why, fix)


def opened(path: Path) -> IO[bytes]:
    """The bytes of a file, those of a `.gz` unpacked."""
    return _unpacked(path) if path.suffix.lower() == ".gz" else open_regular(path)


def opened_by_content(path: Path) -> BufferedReader:
    """The same, whatever the file is called: archives are packed with and without saying so."""
    with open_regular(path) as file:
        packed = file.read(2) == _GZIP
    return _unpacked(path) if packed else open_regular(path)


def lines(file: IO[bytes], longest: int) -> Iterator[bytes | None]:
    """The lines of a file, with their ends. None stands for a line of more than `longest` bytes, which is passed over."""
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
    """gzip's reader gives no more than is asked for at a time; this counts it."""

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
