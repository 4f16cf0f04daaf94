"""HTTP bodies that a web archive holds as they were sent: packed with gzip, deflate or brotli.

warcio ends a body silently where its packing is damaged, and leaves out all members of gzip but the
first. So bodies are unpacked here, in pieces of bounded size. Many archives hold bodies unpacked
under the headers of packed ones; such a body is taken as it is.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any, Protocol

_BLOCK = 1 << 16  # bytes read or unpacked at a time
_PACKINGS = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress"})
_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_DEFLATE_WINDOWS = (zlib.MAX_WBITS, -zlib.MAX_WBITS)  # as the standard says, and as some servers do


class UnreadableBodyError(Exception):
    """The body of one record cannot be unpacked; the other records are not affected."""


class Stream(Protocol):
    """What a body is read from."""

    def read(self, length: int, /) -> bytes:
        """Return at most `length` bytes; none at the end."""
        ...


@dataclass(frozen=True)
class Body:
    """The beginning of a body.

    Attributes:
        bytes: Unpacked.
        is_cut: Whether the packed bytes end before the body does.
    """

    bytes: bytes
    is_cut: bool = False


def unpacked(stream: Stream, encodings: str, limit: int) -> Body:
    """Return at most `limit` bytes of a body, unpacked.

    Args:
        stream: The body as it was sent, without the frame of chunks.
        encodings: The header Content-Encoding; "" if there is none. Some servers state a character
            set there, or "none": what names no packing is passed over.
        limit: Bytes to unpack at most.

    Raises:
        UnreadableBodyError: The body is packed in a way that is not supported, or damaged.
    """
    packings = [name for name in re.split(r"[\s,]+", encodings.lower()) if name in _PACKINGS]
    if not packings:
        return Body(stream.read(limit))
    if packings in (["gzip"], ["x-gzip"]):
        return _unpacked_gzip(stream, limit)
    if packings == ["deflate"]:
        return _unpacked_deflate(stream, limit)
    if packings == ["br"]:
        return _unpacked_brotli(stream, limit)
    raise UnreadableBodyError(f"Content-Encoding {encodings[:80]} is not supported")


def _unpacked_gzip(stream: Stream, limit: int) -> Body:
    piece = stream.read(_BLOCK)
    if not piece.startswith(_GZIP):
        return _as_it_is(piece, stream, limit)
    body = bytearray()
    while piece.startswith(_GZIP) and len(body) < limit:
        decompressor = zlib.decompressobj(_GZIP_WINDOW)
        if not _unpack(decompressor, piece, stream, body, limit, "gzip"):
            return Body(bytes(body[:limit]), is_cut=len(body) < limit)
        piece = decompressor.unused_data + stream.read(_BLOCK)
    return Body(bytes(body[:limit]))


def _unpacked_deflate(stream: Stream, limit: int) -> Body:
    piece = stream.read(_BLOCK)
    for window in _DEFLATE_WINDOWS:
        decompressor = zlib.decompressobj(window)
        try:
            zlib.decompressobj(window).decompress(piece, _BLOCK)
        except zlib.error:
            continue
        body = bytearray()
        is_whole = _unpack(decompressor, piece, stream, body, limit, "deflate")
        return Body(bytes(body[:limit]), is_cut=not is_whole and len(body) < limit)
    return _as_it_is(piece, stream, limit)


def _unpack(
    decompressor: Any, piece: bytes, stream: Stream, body: bytearray, limit: int, encoding: str
) -> bool:
    """Append what `piece` and the rest of the stream unpack to, up to the limit.

    Returns:
        Whether the end of the packed bytes was reached.
    """
    while len(body) < limit:
        try:
            more = decompressor.decompress(piece, _BLOCK)
        except zlib.error as error:
            raise UnreadableBodyError(f"the body, packed with {encoding}: {error}") from None
        body += more
        if decompressor.eof:
            return True
        if not piece and not more:
            return False
        piece = decompressor.unconsumed_tail or stream.read(_BLOCK)
    return False


def _unpacked_brotli(stream: Stream, limit: int) -> Body:
    """Unpack a body of RFC 7932.

    warcio's own support sets an attribute that the decompressor of `brotli` does not have.
    """
    try:
        import brotli
    except ImportError:
        raise UnreadableBodyError("Content-Encoding br needs the package brotli") from None
    if not hasattr(brotli.Decompressor, "can_accept_more_data"):
        raise UnreadableBodyError("Content-Encoding br needs brotli 1.2 or later")
    decompressor = brotli.Decompressor()
    body = bytearray()
    while len(body) < limit and not decompressor.is_finished():
        piece = b""
        if decompressor.can_accept_more_data():
            piece = stream.read(_BLOCK)
        try:
            more = decompressor.process(piece, output_buffer_limit=_BLOCK)
        except brotli.error as error:
            if body:
                raise UnreadableBodyError(f"the body, packed with brotli: {error}") from None
            return _as_it_is(piece, stream, limit)
        if not piece and not more and not decompressor.is_finished():
            return Body(bytes(body), is_cut=True)
        body += more
    return Body(bytes(body[:limit]))


def _as_it_is(begin: bytes, stream: Stream, limit: int) -> Body:
    """Return a body that the archive holds unpacked, whatever its headers say."""
    return Body((begin + stream.read(limit))[:limit])
