"""Signs a browser in without a person having to type the secret.

Both UIs of Prefect read base64(secret) from `localStorage["prefect-password"]`. `groundup up` asks
the server for a code and prints an address with it. The page at that address exchanges the code for
the entry in localStorage, once, and goes on to the UI. The code is in the fragment (after the `#`):
no proxy or log sees it, and a program that only fetches the address does not use it up.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from data_contracts import GroundupError
from flows.prefect_host.api_secret import basic
from flows.prefect_host.server_address import Address

Endpoint = Callable[[Request], Awaitable[Response]]

PAGE_PATH = "/sign-in"
CODES_PATH = "/sign-in/codes"
LIFETIME_S = 600
MAX_CODES = 32
MAX_CODE_BYTES = 200

PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>groundup: sign in</title>
<style nonce="NONCE">
body {font-family: sans-serif; max-width: 36em; margin: 4em auto}
</style></head>
<body>
<h1>groundup</h1>
<p id="state">Signing in …</p>
<noscript><p>This page, and Prefect's, need JavaScript.</p></noscript>
<script nonce="NONCE">
const state = document.getElementById("state");
async function signIn() {
  const code = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  const answer = await fetch(location.pathname, {method: "POST", body: code});
  if (!answer.ok) throw new Error(await answer.text());
  localStorage.setItem("prefect-password", (await answer.json()).password);
  location.replace("/");
}
signIn().catch(error => { state.textContent = error.message; });
</script>
</body>
</html>
"""
PAGE_POLICY = (
    "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
USED_UP = "This address was used already, or is too old. For a new one: groundup up"


class Codes:
    """The codes in circulation: each can be redeemed once, within LIFETIME_S seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic):
        self._now = now
        self._ends: dict[bytes, float] = {}

    def issue(self) -> str:
        """Return a new code. Beyond MAX_CODES the oldest one becomes invalid."""
        code = secrets.token_urlsafe(24)
        while len(self._ends) >= MAX_CODES:
            del self._ends[next(iter(self._ends))]
        self._ends[_digest(code)] = self._now() + LIFETIME_S
        return code

    def redeem(self, code: str) -> bool:
        """Return whether the code was issued, is not too old, and was not redeemed before."""
        ends = self._ends.pop(_digest(code), None)
        return ends is not None and self._now() < ends


class SignIn:
    """ASGI middleware: the sign-in page, the exchange, and new codes for holders of the secret."""

    def __init__(self, app: ASGIApp, secret: str, codes: Codes | None = None):
        self.app = app
        self.secret = secret
        self.codes = codes or Codes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoints: dict[str, Endpoint] = {PAGE_PATH: self._page, CODES_PATH: self._new_code}
        endpoint = None
        if scope["type"] == "http":
            endpoint = endpoints.get(scope["path"])
            if endpoint is None and not _is_comparable(Headers(scope=scope).get("Authorization")):
                endpoint = _unauthorized
        if endpoint is None:
            await self.app(scope, receive, send)
            return
        response = await endpoint(Request(scope, receive))
        response.headers["Cache-Control"] = "no-store"
        await response(scope, receive, send)

    async def _page(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD"):
            nonce = secrets.token_urlsafe(16)
            policy = {"Content-Security-Policy": PAGE_POLICY.format(nonce)}
            return HTMLResponse(PAGE.replace("NONCE", nonce), headers=policy)
        if request.method != "POST":
            return PlainTextResponse("Method Not Allowed", 405)
        if not self.codes.redeem(await _short_text(request)):
            return PlainTextResponse(USED_UP, 403)
        return JSONResponse({"password": basic(self.secret)})

    async def _new_code(self, request: Request) -> Response:
        if request.method != "POST":
            return PlainTextResponse("Method Not Allowed", 405)
        given = request.headers.get("Authorization", "").encode()
        expected = f"Basic {basic(self.secret)}".encode()
        if not hmac.compare_digest(given, expected):
            return await _unauthorized(request)
        return JSONResponse({"code": self.codes.issue()})


async def _unauthorized(_: Request) -> Response:
    return PlainTextResponse("Unauthorized", 401)


def _is_comparable(authorization: str | None) -> bool:
    """Return whether Prefect can compare credentials; it fails with a traceback where it cannot.

    It decodes what follows "Basic", and `hmac.compare_digest` takes no text beyond ASCII.
    """
    words = (authorization or "").split()
    try:
        return not words or base64.b64decode(words[-1]).isascii()
    except ValueError:
        return True  # Prefect refuses what it cannot decode


def new_address(address: Address, secret: str) -> str:
    """Return a URL that signs a browser in, once, at the server that listens at `address`.

    Raises:
        GroundupError: The server does not answer, or does not accept the secret.
    """
    local = address.api_url.removesuffix("/api")
    headers = {"Authorization": f"Basic {basic(secret)}"}
    request = urllib.request.Request(local + CODES_PATH, method="POST", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            code = json.load(answer)["code"]
    except (OSError, ValueError, KeyError) as error:
        why = f"gives no sign-in address: {error}"
        fix = "groundup down, then groundup up again"
        raise GroundupError(f"the Prefect server at {local}", why, fix) from error
    return f"{address.ui_url}{PAGE_PATH}#{code}"


async def _short_text(request: Request) -> str:
    """Return the body of a request; "" if it is longer than any code."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_CODE_BYTES:
            return ""
    return body.decode("ascii", "replace")


def _digest(code: str) -> bytes:
    """Return the digest by which a code is looked up, so that timing reveals nothing of it."""
    return hashlib.sha256(code.encode()).digest()
