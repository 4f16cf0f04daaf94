"""HTTP bodies in chunks (RFC 9112, section 7.1).

warcio reads each chunk through its whole stack of readers, keeps the pieces in a list, and passes
on the frames of a chunk that it does not understand. A body of three million chunks of one byte
takes it more than half a gigabyte.
"""

from __future__ import annotations

import re

from stages.crawl.packed_bodies import Stream, UnreadableBodyError

_BLOCK = 1 << 16  # bytes read at a time
_MAX_LINE_BYTES = 4096  # before a chunk: its length and remarks
_LENGTH = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")
_LIKE_LENGTH = re.compile(rb"[0-9A-Fa-f]+[ \t]*[;\r]")
_END = b"\r\n"


class ChunkedBody:
    """A body without the frames of its chunks.

    Many archives hold bodies without chunks under the headers of chunked ones. One that does not
    begin with the length of a chunk is read as it is.

    Attributes:
        is_cut: Whether the bytes ended before the last chunk, which is empty. Read to the end to
            know it.
    """

    def __init__(self, stream: Stream):
        self._stream = stream
        self._bytes = b""
        self._at = 0  # bytes before it were returned or passed over
        self._left = 0  # bytes of the chunk that follow
        self._is_first = True
        self._is_chunked = True
        self._is_over = False
        self.is_cut = False

    def read(self, length: int, /) -> bytes:
        """Return at most `length` bytes; none at the end.

        Raises:
            UnreadableBodyError: The frames are damaged.
        """
        body = bytearray()
        while len(body) < length and not self._is_over:
            if self._at >= len(self._bytes):
                self._fill()
            if self._is_chunked and not self._left:
                self._begin_chunk()
                continue
            self._take(length, body)
        return bytes(body)

    def _fill(self) -> None:
        """Read a block behind what is left of the last one."""
        more = self._stream.read(_BLOCK)
        self._bytes = self._bytes[self._at :] + more
        self._at = 0
        if not self._bytes:
            self._is_over = True
            self.is_cut = self._is_chunked and not self._is_first

    def _begin_chunk(self) -> None:
        if len(self._bytes) - self._at < _MAX_LINE_BYTES:
            self._fill()
        if self._is_over:
            return
        line = _LENGTH.match(self._bytes, self._at, self._at + _MAX_LINE_BYTES)
        if line is None:
            if self._ends_here():
                self._is_over = self.is_cut = True
                return
            if not self._is_first or _LIKE_LENGTH.match(self._bytes):
                raise UnreadableBodyError(
                    "the body is in chunks, and one has no length that can be read"
                )
            self._is_chunked = False
            return
        self._is_first = False
        self._at = line.end()
        self._left = int(line[1], 16)
        self._is_over = self._left == 0

    def _ends_here(self) -> bool:
        """Return whether the bytes end inside the length of a chunk that is not the first."""
        rest = self._bytes[self._at :]
        return not self._is_first and len(rest) < _MAX_LINE_BYTES and b"\n" not in rest

    def _take(self, length: int, body: bytearray) -> None:
        """Append what is there of this chunk; behind its last byte, pass over the end of it."""
        end = self._at + length - len(body)
        if self._is_chunked:
            end = min(end, self._at + self._left)
        piece = self._bytes[self._at : end]
        body += piece
        self._at += len(piece)
        if not self._is_chunked:
            return
        self._left -= len(piece)
        if self._left:
            return
        if len(self._bytes) - self._at < len(_END):
            self._fill()
        if not _END.startswith(self._bytes[self._at : self._at + len(_END)]):  # or cut there
            raise UnreadableBodyError("the body is in chunks, and one is longer than it says")
        self._at += len(_END)
