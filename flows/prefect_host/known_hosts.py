"""ASGI middleware that refuses foreign hosts and origins and adds security headers.

With DNS rebinding, a page on a foreign name that resolves to this machine sends that name in
`Host`. A page of another origin sends its origin in `Origin`, also with WebSockets, which the
same-origin policy does not cover. Both are refused before Prefect sees them.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.prefect_host.server_address import Address

POLICY_VIOLATION = 1008  # RFC 6455; sent before the handshake it becomes HTTP status 403
# Both UIs draw the graph of a run with a library that compiles shaders and starts workers from
# blobs. Scripts in the markup, where an injected one would be, never run.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-src 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class KnownHosts:
    """A guard against requests for another host or from another origin; HEADERS in all answers."""

    def __init__(self, app: ASGIApp, address: Address):
        self.app = app
        self.hosts = address.hosts
        self.origins = address.origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(Headers(scope=scope))
        if refusal is None:
            await self.app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": ""})
        else:
            await PlainTextResponse(refusal, 403)(scope, receive, _with_headers(send))

    def _refusal(self, headers: Headers) -> str | None:
        hosts = headers.getlist("host")
        origins = headers.getlist("origin")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return "This server has another address. Open the one that groundup up prints."
        if any(origin.lower() not in self.origins for origin in origins):
            return "A page of another origin may not speak to this server."
        return None


def _with_headers(send: Send) -> Send:
    """Add HEADERS to an answer. A header that the answer has, such as a stricter policy, stays."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers
