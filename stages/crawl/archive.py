"""WARC 1.1 files (ISO 28500) of what was fetched, one gzip member per record for random access.

Bodies are stored decoded. The headers about their encoding in transit get the prefix X-Crawl-, as
in Common Crawl, because they no longer describe the bytes.
"""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from stages.crawl.fetch import Answer

MAX_FILE_BYTES = 1 << 30  # a new file is begun beyond this
_OF_TRANSIT = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class Record(NamedTuple):
    """Where a response is: number of the file, first byte, first byte after its records."""

    file: int
    offset: int
    end: int


class Archive:
    """Appends records to `<folder>/<name>-00000.warc.gz` and its successors. Not thread-safe."""

    def __init__(self, folder: Path, name: str, agent: str):
        self._folder, self._name, self._agent = folder, name, agent
        self._file = -1
        self._out: BytesIO | None = None

    def path(self, number: int) -> Path:
        return self._folder / f"{self._name}-{number:05d}.warc.gz"

    @property
    def paths(self) -> dict[int, Path]:
        """The files by number, in order, without those of an archive called `<name>-2`."""
        pattern = re.compile(re.escape(self._name) + r"-([0-9]{5})\.warc\.gz")
        files = {}
        for path in sorted(self._folder.iterdir()):
            match = pattern.fullmatch(path.name)
            if match:
                files[int(match[1])] = path
        return files

    def cut(self, last: Record | None) -> None:
        """Continue after `last`, and remove what a killed process wrote beyond it."""
        for number, path in self.paths.items():
            if last is None or number > last.file:
                path.unlink()
            elif number == last.file:
                with path.open("r+b") as file:
                    file.truncate(last.end)
        if last is not None:
            self._open(last.file)

    def holds(self, record: Record) -> bool:
        path = self.path(record.file)
        return path.is_file() and path.stat().st_size >= record.end

    def write(self, answer: Answer) -> Record:
        """Write response and request of `answer`, and flush both to the operating system."""
        if self._out is None or self._out.tell() > MAX_FILE_BYTES:
            self._open(self._file + 1)
        assert self._out is not None
        offset = self._out.tell()
        writer = WARCWriter(self._out, gzip=True, warc_version="WARC/1.1")
        date = {"WARC-Date": answer.began.isoformat(timespec="microseconds").replace("+00:00", "Z")}
        cut = {"WARC-Truncated": "length"} if answer.truncated else {}
        response = writer.create_warc_record(
            answer.url,
            "response",
            BytesIO(answer.body),
            len(answer.body),
            warc_headers_dict=date | cut,
            http_headers=_response_headers(answer),
        )
        parts = urlsplit(answer.url)
        line = f"GET {parts.path}{'?' + parts.query if parts.query else ''} HTTP/1.1"
        headers = StatusAndHeaders(line, list(answer.asked_with), is_http_request=True)
        request = writer.create_warc_record(
            answer.url, "request", warc_headers_dict=dict(date), http_headers=headers
        )
        writer.write_request_response_pair(request, response)
        self._out.flush()
        return Record(self._file, offset, self._out.tell())

    def body(self, record: Record) -> bytes:
        """The body of a response that was written before."""
        with self.path(record.file).open("rb") as file:
            file.seek(record.offset)
            return next(ArchiveIterator(file)).content_stream().read()

    def close(self) -> None:
        if self._out is not None:
            self._out.close()
            self._out = None

    def _open(self, number: int) -> None:
        self.close()
        self._file = number
        self._out = self.path(number).open("ab")  # type: ignore[assignment]
        assert self._out is not None
        if self._out.tell() == 0:
            about = {"software": self._agent, "format": "WARC File Format 1.1"}
            writer = WARCWriter(self._out, gzip=True, warc_version="WARC/1.1")
            writer.write_record(writer.create_warcinfo_record(self.path(number).name, about))


def _response_headers(answer: Answer) -> StatusAndHeaders:
    headers = [
        (f"X-Crawl-{name}" if name.lower() in _OF_TRANSIT else name, value)
        for name, value in answer.headers
    ]
    headers.append(("Content-Length", str(len(answer.body))))
    phrase = answer.phrase.encode("ascii", "replace").decode()  # warcio writes no other status line
    return StatusAndHeaders(f"{answer.status} {phrase}".strip(), headers, protocol="HTTP/1.1")
