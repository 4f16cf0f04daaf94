"""Records of web archives, byte by byte."""

from __future__ import annotations

HEAD = (
    b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:0>\r\n"
    b"WARC-Date: 2026-01-01T00:00:00Z\r\n"
)


def warc_record(
    address=b"https://example.org/", body=b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
):
    """A response; body includes the HTTP headers."""
    length = str(len(body)).encode()
    kind = b"Content-Type: application/http; msgtype=response\r\n"
    return (
        HEAD
        + b"WARC-Target-URI: "
        + address
        + b"\r\n"
        + kind
        + b"Content-Length: "
        + length
        + b"\r\n\r\n"
        + body
        + b"\r\n\r\n"
    )
