"""Records of archives, byte by byte, with false lengths."""

from __future__ import annotations

PAGE = b"<p>a page of some words</p>"


def record(
    address: str,
    body: bytes = PAGE,
    headers: bytes = b"",
    more: int = 0,
) -> bytes:
    """A response whose Content-Length is `more` bytes too large."""
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + headers + b"\r\n" + body
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:0>\r\n"
        f"WARC-Date: 2026-01-01T00:00:00Z\r\nWARC-Target-URI: https://example.org/{address}\r\n"
        "Content-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(http) + more}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


def other(kind: str, more: int = 0, block: bytes = b"a: b\r\n") -> bytes:
    """A record that is no page, whose Content-Length is `more` bytes too large."""
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:1>\r\n"
        "WARC-Date: 2026-01-01T00:00:00Z\r\nWARC-Target-URI: https://example.org/x\r\n"
        f"Content-Length: {len(block) + more}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"
