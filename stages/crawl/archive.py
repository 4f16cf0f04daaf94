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
from warcio.recordloader import ArcWarcRecord
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from stages.crawl.fetch import HttpResponse

MAX_FILE_BYTES = 1 << 30  # a new file is begun beyond this
_VERSION = "WARC/1.1"
_OF_TRANSIT = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class ArchivePosition(NamedTuple):
    """Where a response is.

    Attributes:
        file: Number of the file.
        offset: First byte of the response.
        end: First byte after its records.
    """

    file: int
    offset: int
    end: int


class Archive:
    """Appends records to `<folder>/<name>-00000.warc.gz` and its successors. Not thread-safe."""

    def __init__(self, folder: Path, name: str, agent: str):
        self._folder = folder
        self._name = name
        self._agent = agent
        self._file = -1
        self._out: BytesIO | None = None

    def path(self, number: int) -> Path:
        """Return the path of a file."""
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

    def cut(self, last: ArchivePosition | None) -> None:
        """Continue after `last`, and remove what a killed process wrote beyond it."""
        for number, path in self.paths.items():
            if last is None or number > last.file:
                path.unlink()
            elif number == last.file:
                with path.open("r+b") as file:
                    file.truncate(last.end)
        if last is not None:
            self._open(last.file)

    def holds(self, record: ArchivePosition) -> bool:
        """Return whether the file of a record is long enough to hold it."""
        path = self.path(record.file)
        return path.is_file() and path.stat().st_size >= record.end

    def write(self, response: HttpResponse) -> ArchivePosition:
        """Write a response and its request, and flush both to the operating system."""
        if self._out is None or self._out.tell() > MAX_FILE_BYTES:
            self._open(self._file + 1)
        assert self._out is not None
        offset = self._out.tell()
        writer = WARCWriter(self._out, gzip=True, warc_version=_VERSION)
        writer.write_request_response_pair(
            _request_record(writer, response),
            _response_record(writer, response),
        )
        self._out.flush()
        return ArchivePosition(self._file, offset, self._out.tell())

    def body(self, record: ArchivePosition) -> bytes:
        """Return the body of a response that was written before."""
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
            writer = WARCWriter(self._out, gzip=True, warc_version=_VERSION)
            writer.write_record(writer.create_warcinfo_record(self.path(number).name, about))


def _date(response: HttpResponse) -> dict[str, str]:
    """Return the WARC header with the time of the request."""
    date = response.began.isoformat(timespec="microseconds")
    return {"WARC-Date": date.replace("+00:00", "Z")}


def _request_record(writer: WARCWriter, response: HttpResponse) -> ArcWarcRecord:
    parts = urlsplit(response.url)
    target = parts.path
    if parts.query:
        target += f"?{parts.query}"
    headers = StatusAndHeaders(
        f"GET {target} HTTP/1.1",
        list(response.asked_with),
        is_http_request=True,
    )
    return writer.create_warc_record(
        response.url,
        "request",
        warc_headers_dict=_date(response),
        http_headers=headers,
    )


def _response_record(writer: WARCWriter, response: HttpResponse) -> ArcWarcRecord:
    warc_headers = _date(response)
    if response.truncated:
        warc_headers["WARC-Truncated"] = "length"
    return writer.create_warc_record(
        response.url,
        "response",
        BytesIO(response.body),
        len(response.body),
        warc_headers_dict=warc_headers,
        http_headers=_response_headers(response),
    )


def _response_headers(response: HttpResponse) -> StatusAndHeaders:
    headers = []
    for name, value in response.headers:
        if name.lower() in _OF_TRANSIT:
            name = f"X-Crawl-{name}"
        headers.append((name, value))
    headers.append(("Content-Length", str(len(response.body))))
    phrase = response.phrase.encode("ascii", "replace").decode()  # warcio writes no other
    status_line = f"{response.status} {phrase}".strip()
    return StatusAndHeaders(status_line, headers, protocol="HTTP/1.1")
