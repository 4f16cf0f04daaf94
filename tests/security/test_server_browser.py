"""The server in a real browser: its owner signs in without typing; foreign pages get nothing."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from flows.prefect_host.api_secret import basic
from flows.prefect_host.server_address import Address
from flows.prefect_host.sign_in import USED_UP, new_address
from tests.flows.conftest import Groundup, chromium_page, follow_sign_in

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("attacked")]

PAGES = [
    "dashboard",
    "deployments",
    "runs",
    "work-pools",
    "blocks",
    "automations",
    "events",
    "artifacts",
    "variables",
    "settings",
]
UIS = {"first": "", "second": "/v2"}
# If the policy holds back anything but an outside host, a part of the UI does not work.
WATCH_POLICY = """
window.heldBack = [];
document.addEventListener(
  "securitypolicyviolation",
  event => window.heldBack.push(event.effectiveDirective + " " + event.blockedURI)
);
"""
FETCH = "address => fetch(address, {mode: 'no-cors'}).then(() => 'sent', () => 'not sent')"
ATTACK = """
async port => {
  const base = "127.0.0.1:" + port;
  const reads = await fetch("http://" + base + "/api/csrf-token?client=x")
    .then(answer => answer.text(), () => "nothing");
  const sends = await fetch("http://" + base + "/sign-in", {method: "POST", body: "x"})
    .then(() => "an answer", () => "nothing");
  const opens = path => new Promise(resolve => {
    const socket = new WebSocket("ws://" + base + path, ["prefect"]);
    socket.onopen = () => resolve("open");
    socket.onerror = () => resolve("nothing");
  });
  const frame = document.createElement("iframe");
  frame.src = "http://" + base + "/sign-in";
  const framed = new Promise(resolve => {
    frame.onload = () => {
      let text = "nothing";
      try { text = frame.contentDocument.body.innerText; } catch (error) { }
      resolve(text);
    };
  });
  document.body.append(frame);
  const sockets = [await opens("/api/events/out"), await opens("/api/events/in")];
  return [reads, sends, ...sockets, await framed];
}
"""


class Recorder:
    """A proxy that lets nothing through and records requests: all of a browser but for loopback."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:  # closed at the end of the test
                return
            with connection:
                self.asked.append(connection.recv(65536).decode("latin-1").partition("\r\n")[0])
                connection.sendall(
                    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )

    def close(self) -> None:
        self._listening.close()

    def names(self, host: str) -> bool:
        return any(host in line for line in self.asked)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with closing(Recorder()) as recorder:
        yield recorder


@contextmanager
def page_elsewhere() -> Iterator[str]:
    """The address of a page on another origin."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!DOCTYPE html><title>elsewhere</title><body>")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as listening:
        Thread(target=listening.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def _sign_in(groundup: Groundup, page: Any) -> str:
    address = new_address(Address(port=groundup.port), groundup.secret)
    follow_sign_in(page, address)
    return address


def _wait_until(happened: Callable[[], bool], page: Any) -> None:
    deadline = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)  # lets the browser's events in


def test_the_address_signs_in_to_both_uis_without_typing_and_once(attacked: Groundup) -> None:
    with chromium_page() as page:
        address = _sign_in(attacked, page)
        assert page.evaluate("localStorage.getItem('prefect-password')") == basic(attacked.secret)
        for prefix in UIS.values():
            page.goto(f"{attacked.url}{prefix}/deployments")
            page.get_by_text("build-llm").locator("visible=true").first.wait_for()
            assert page.locator("input[type=password]").count() == 0
        assert "#" not in page.evaluate("JSON.stringify(history.state) + location.href")
    with chromium_page() as page:  # as somebody does who finds the address in a history
        page.goto(address)
        page.get_by_text(USED_UP).wait_for()
        assert page.evaluate("localStorage.length") == 0


@pytest.mark.parametrize("prefix", UIS.values(), ids=UIS)
def test_without_an_address_the_uis_ask_for_the_secret_and_show_nothing(
    attacked: Groundup, prefix: str
) -> None:
    with chromium_page() as page:
        page.goto(f"{attacked.url}{prefix}/deployments")
        page.locator("input[type=password]").wait_for()
        assert "build-llm" not in page.content()


@pytest.mark.parametrize("prefix", UIS.values(), ids=UIS)
def test_no_page_asks_an_outside_host_and_none_is_held_back_from_its_own(
    attacked: Groundup, recorder: Recorder, prefix: str
) -> None:
    run = _failed_run(attacked)
    # Chromium uses no proxy for loopback, and so reaches our server
    with chromium_page(f"--proxy-server=http://127.0.0.1:{recorder.port}") as page:
        page.goto("about:blank")
        page.evaluate(FETCH, "http://outside.example/before")
        assert recorder.names("outside.example/before"), "what a page without a policy asks is seen"
        page.add_init_script(WATCH_POLICY)
        asked: list[str] = []  # by pages; the proxy also sees the requests of Chromium itself
        page.context.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda opened: asked.append(opened.url))
        recorder.asked.clear()
        _sign_in(attacked, page)
        for path in [
            *PAGES,
            f"runs/flow-run/{run}",
            f"deployments/deployment/{attacked.deployment('build-llm')['id']}",
        ]:
            page.goto(f"{attacked.url}{prefix}/{path}", wait_until="networkidle")
            held_back = page.evaluate("window.heldBack")
            own = [one for one in held_back if "://" not in one or attacked.url in one]
            assert not own, (path, own)
        assert page.evaluate(FETCH, "http://outside.example/after") == "not sent"
        assert not recorder.names("outside.example")
        ours = (
            f"http://127.0.0.1:{attacked.port}/",
            f"ws://127.0.0.1:{attacked.port}/",
            "data:",
            "blob:",
        )
        assert any(url.startswith(f"{ours[0]}api/") for url in asked), "what a page asks is seen"
        assert [
            url for url in asked if not url.startswith((*ours, "http://outside.example/after"))
        ] == []


def _failed_run(groundup: Groundup) -> str:
    """A flow run with a page. It fails at once, because there is no run called none."""
    identity = groundup.deployment("rerun")["id"]
    parameters = {"name": "none", "stage": "clean"}
    return groundup.api(f"/deployments/{identity}/create_flow_run", parameters=parameters)["id"]


def test_a_page_on_another_origin_reads_nothing_opens_no_websocket_and_frames_nothing(
    attacked: Groundup,
) -> None:
    with chromium_page() as page, page_elsewhere() as elsewhere:
        _sign_in(attacked, page)
        page.goto(elsewhere)
        assert page.evaluate(ATTACK, attacked.port) == ["nothing"] * 5


def test_a_page_under_a_foreign_name_that_resolves_to_loopback_is_refused(
    attacked: Groundup,
) -> None:
    with chromium_page("--host-resolver-rules=MAP rebound.example 127.0.0.1") as page:
        for path in ("/", "/v2", "/api/csrf-token?client=x", "/sign-in"):
            answer = page.goto(f"http://rebound.example:{attacked.port}{path}")
            assert answer.status == 403
        read = "fetch('/api/csrf-token?client=x').then(answer => answer.status)"
        assert page.evaluate(read) == 403
        open_socket = (
            "new Promise(resolve => {"
            "const address = 'ws://' + location.host + '/api/events/out';"
            "const socket = new WebSocket(address, ['prefect']);"
            "socket.onopen = () => resolve('open'); socket.onerror = () => resolve('nothing'); })"
        )
        assert page.evaluate(open_socket) == "nothing"


def test_nothing_that_is_printed_or_kept_in_the_browser_but_one_entry_has_the_secret(
    attacked: Groundup,
) -> None:
    with chromium_page() as page:
        address = _sign_in(attacked, page)
        page.goto(f"{attacked.url}/v2/dashboard", wait_until="networkidle")
        kept = page.evaluate(
            "JSON.stringify([Object.entries(localStorage),"
            " Object.entries(sessionStorage), document.cookie])"
        )
        entries = dict(json.loads(kept)[0])
        assert entries.pop("prefect-password") == basic(attacked.secret)
        for text in (
            json.dumps(entries),
            *map(json.dumps, json.loads(kept)[1:]),
            address,
            page.url,
        ):
            assert basic(attacked.secret) not in text
            assert attacked.secret not in text
