"""HTTP bodies that a web archive holds as they were sent: packed with gzip, deflate or brotli.

warcio ends a body silently where its packing is damaged, and leaves out all members of gzip but the
first. So bodies are unpacked here, in pieces of bounded size. Many archives hold bodies unpacked
under the headers of packed ones; such a body is taken as it is if it looks like text.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

_BLOCK = 1 << 16  # bytes read or unpacked at a time
_MAX_MEMBERS = 1000  # of gzip in a body; each costs time, even one that unpacks to nothing
_BEHIND = 1024  # bytes behind a body of brotli that may be there
# What some servers state as the encoding of a content, and is no packing.
_NO_PACKING = re.compile(
    r"identity|none|null|plain|text|text/[a-z]+|binary|[78]bit|unicode"
    r"|(?:charset=)?(?:utf-?(?:8|16|16le|16be)|(?:us-)?ascii|latin-?1|iso[-_]?8859-?[0-9]{1,2}"
    r"|(?:windows|cp)-?[0-9]{3,4}|gbk|gb2312|gb18030|big5|shift[-_]?jis|euc-(?:jp|kr|tw)"
    r"|iso-2022-[a-z]{2}|koi8-[ru])"
)
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))  # the last shifts ISO-2022
_GZIP = b"\x1f\x8b"
_PADDING = b"\0\r\n"  # that may follow the last member
_NO_MEMBER = "the body, packed with gzip, has bytes behind a member that do not begin another one"
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
        encodings: All that the headers Content-Encoding and Transfer-Encoding say, but for chunks;
            "" if there is none. Some servers state a character set there, or "none": what is known
            to name no packing is passed over.
        limit: Bytes to unpack at most.

    Raises:
        UnreadableBodyError: The body is packed in a way that is not supported, or damaged.
    """
    names = [name for name in re.split(r"[\s,;]+", encodings.lower()) if name]
    packings = [name for name in names if not _NO_PACKING.fullmatch(name)]
    if not packings:
        return Body(read_all(stream, limit))
    if packings in (["gzip"], ["x-gzip"]):
        return _unpacked_gzip(stream, limit)
    if packings == ["deflate"]:
        return _unpacked_deflate(stream, limit)
    if packings == ["br"]:
        return _unpacked_brotli(stream, limit)
    raise UnreadableBodyError(f"Content-Encoding {encodings[:80]} is not supported")


def read_all(stream: Stream, limit: int) -> bytes:
    """Return at most `limit` bytes, read in blocks."""
    body = bytearray()
    while piece := stream.read(min(_BLOCK, limit - len(body))):
        body += piece
    return bytes(body)


def _unpacked_gzip(stream: Stream, limit: int) -> Body:
    piece = stream.read(_BLOCK)
    if not piece.startswith(_GZIP):
        return _as_it_is(piece, stream, limit, "gzip")
    body = bytearray()
    members = 0
    while piece.startswith(_GZIP) and len(body) < limit:
        members += 1
        if members > _MAX_MEMBERS:
            why = f"the body, packed with gzip, has more than {_MAX_MEMBERS:,} members"
            raise UnreadableBodyError(why)
        decompressor = zlib.decompressobj(_GZIP_WINDOW)
        if not _unpack(decompressor, piece, stream, body, limit, "gzip"):
            return Body(bytes(body[:limit]), is_cut=len(body) < limit)
        piece = _begin(decompressor.unused_data, stream)
    is_cut = piece == _GZIP[:1]
    if len(body) < limit and not is_cut:
        _check_padding(piece, stream)
    return Body(bytes(body[:limit]), is_cut=is_cut and len(body) < limit)


def _begin(piece: bytes, stream: Stream) -> bytes:
    """Return `piece`, with more of the stream if it is too short to show what it is."""
    while len(piece) < len(_GZIP):
        more = stream.read(_BLOCK)
        if not more:
            break
        piece += more
    return piece


def _check_padding(piece: bytes, stream: Stream) -> None:
    """Read what follows the last member of gzip, up to the end.

    Raises:
        UnreadableBodyError: It is no padding: the beginning of another member is damaged.
    """
    while piece:
        if piece.strip(_PADDING):
            raise UnreadableBodyError(_NO_MEMBER)
        piece = stream.read(_BLOCK)


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
    return _as_it_is(piece, stream, limit, "deflate")


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
    first = stream.read(_BLOCK)
    pieces = _brotli_pieces(first, stream)
    decompressor = brotli.Decompressor()
    body = bytearray()
    read = 0
    more = b""
    while len(body) < limit and not decompressor.is_finished():
        piece, before = b"", more
        # It says that it accepts more when all was read and the end is still to be given.
        if not before and decompressor.can_accept_more_data():
            piece = next(pieces, b"")
            read += len(piece)
        try:
            more = decompressor.process(piece, output_buffer_limit=_BLOCK)
        except brotli.error as error:
            if read <= len(first) and _looks_like_text(first):
                return _as_it_is(first, stream, limit, "brotli")
            raise UnreadableBodyError(f"the body, packed with brotli: {error}") from None
        if not (piece or more or before or decompressor.is_finished()):
            return Body(bytes(body), is_cut=True)
        body += more
    return Body(bytes(body[:limit]))


def _brotli_pieces(block: bytes, stream: Stream) -> Iterator[bytes]:
    """Yield what is there to unpack, the end of each block byte by byte.

    A decompressor that is given a byte too many fails, and keeps what it has unpacked to itself.
    """
    while block:
        if len(block) > _BEHIND:
            yield block[:-_BEHIND]
        for byte in block[-_BEHIND:]:
            yield bytes((byte,))
        block = stream.read(_BLOCK)


def _as_it_is(begin: bytes, stream: Stream, limit: int, packing: str) -> Body:
    """Return a body that the archive holds unpacked, whatever its headers say.

    Raises:
        UnreadableBodyError: It is not a text: its packing is damaged, or another one than stated.
    """
    if not _looks_like_text(begin):
        why = f"the body is neither packed with {packing}, as its headers say, nor text"
        raise UnreadableBodyError(why)
    return Body((begin + read_all(stream, limit))[:limit])


def _looks_like_text(begin: bytes) -> bool:
    """Return whether bytes look like a text in any character set but UTF-16 and UTF-32.

    Of packed bytes, every tenth is a control character.
    """
    controls = len(begin) - len(begin.translate(None, _CONTROLS))
    return b"\0" not in begin and controls * 200 <= len(begin)
