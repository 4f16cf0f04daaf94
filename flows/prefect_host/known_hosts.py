"""ASGI middleware: the server answers under its own names only, and says to browsers what its pages may do.

A page on a foreign name that resolves to this machine (DNS rebinding) carries that name in `Host`;
a page on another origin that speaks to us carries it in `Origin`, for WebSockets, too, which no
same-origin policy holds back. Both are refused before Prefect sees them.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.prefect_host.server_address import Address

POLICY_VIOLATION = 1008  # RFC 6455; sent before the handshake it becomes HTTP status 403
# Both UIs draw the graph of a run with a library that compiles its shaders' code and works in workers
# made from blobs; scripts that stand in markup, as an injected one would, never run.
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
    """Refuses what was sent to a name, or by a page, that is not ours; adds the headers to the rest."""

    def __init__(self, app: ASGIApp, address: Address):
        self.app, self.hosts, self.origins = app, address.hosts, address.origins

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
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return "This server is not known under that name; see --url of groundup up."
        if any(origin.lower() not in self.origins for origin in origins):
            return "A page of another origin may not speak to this server."
        return None


def _with_headers(send: Send) -> Send:
    """A page with a stricter policy of its own keeps it."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers
