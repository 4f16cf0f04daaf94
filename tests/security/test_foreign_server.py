"""A Prefect server that the environment names gets nothing of our secret, and that is said."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from flows.home import Home
from flows.prefect_host import api_secret
from flows.prefect_host.api_secret import basic
from tests.flows.conftest import Groundup, free_port


class Foreign:
    """A server that is healthy and knows nothing else; it keeps all that it is sent."""

    def __init__(self) -> None:
        self.received: list[str] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                received.append(f"{self.command} {self.path}\n{self.headers}\n{body!r}")
                self.send_response(200 if self.path.endswith("/health") else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_PATCH = do_GET  # noqa: N815  http.server calls them so

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/api"


@pytest.fixture
def foreign() -> Iterator[Foreign]:
    made = Foreign()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def groundup(tmp_path: Path) -> Groundup:
    made = Groundup(tmp_path / "home", free_port(), tmp_path)
    assert made.secret, "the home has one"
    return made


@pytest.mark.slow
def test_a_server_that_the_environment_names_gets_no_secret_of_ours_and_that_is_said(
    foreign: Foreign, groundup: Groundup
) -> None:
    secret = groundup.secret
    groundup.environment["PREFECT_API_URL"] = foreign.api_url
    done = groundup.run("up", check=False)
    assert done.returncode == 2
    assert "as PREFECT_API_URL says; our secret is not sent there" in done.stderr
    assert "decides what the worker here runs" in done.stderr
    assert any("/health" not in request for request in foreign.received), "it was asked for more"
    for request in foreign.received:
        assert secret not in request
        assert basic(secret) not in request
        assert secret.split(":")[1] not in request


@pytest.mark.slow
@pytest.mark.parametrize("command", [["up"], ["run", "--recipe", "own"]])
def test_our_secret_in_the_environment_is_not_sent_to_a_foreign_server(
    command: list[str], foreign: Foreign, groundup: Groundup
) -> None:
    (groundup.folder / "page.txt").write_text("A page of text.")
    groundup.environment |= {
        "PREFECT_API_URL": foreign.api_url,
        "PREFECT_API_AUTH_STRING": groundup.secret,
    }
    if command[0] == "run":
        command = [*command, "--set", "crawl.sources=[{kind: files, paths: ['*.txt']}]"]
    done = groundup.run(*command, check=False)
    assert done.returncode == 2
    assert "PREFECT_API_AUTH_STRING would send it our secret" in done.stderr
    assert groundup.secret not in done.stdout + done.stderr
    assert foreign.received == []


@pytest.mark.parametrize(
    "headers",
    ['{{"Authorization": "Basic {basic}"}}', '{{"X-Any": "{secret}"}}', '{{"X": "{password}"}}'],
    ids=["basic", "as it is", "password"],
)
def test_headers_of_the_environment_that_hold_our_secret_are_not_sent_to_a_foreign_server(
    headers: str, foreign: Foreign, groundup: Groundup
) -> None:
    forms = {
        "basic": basic(groundup.secret),
        "secret": groundup.secret,
        "password": groundup.secret.split(":")[1],
    }
    groundup.environment |= {
        "PREFECT_API_URL": foreign.api_url,
        "PREFECT_CLIENT_CUSTOM_HEADERS": headers.format(**forms),
    }
    done = groundup.run("up", check=False)
    assert done.returncode == 2
    assert "PREFECT_CLIENT_CUSTOM_HEADERS would send it our secret" in done.stderr
    assert not [form for form in forms.values() if form in done.stdout + done.stderr]
    assert foreign.received == []


HIDDEN: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in JSON": lambda text: json.dumps({"X-A": text}),
    "escapes": lambda text: '{"X-A": "' + "".join(f"\\u{ord(o):04x}" for o in text) + '"}',
    "a name": lambda text: json.dumps({text: ["x"]}),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "percent": lambda text: "".join(f"%{ord(one):02X}" for one in text),
    "percent in JSON": lambda text: json.dumps({"X": "".join(f"%{ord(o):02x}" for o in text)}),
}


@pytest.mark.parametrize("hide", HIDDEN.values(), ids=HIDDEN)
def test_our_secret_is_found_in_any_form_that_is_undone(
    hide: Callable[[str], str], tmp_path: Path
) -> None:
    at = Home(tmp_path / "home")
    for secret in ("groundup:a>b?c~d~e~~f>>g??h", api_secret.read_or_make(at)):
        (at.prefect / "api-secret").write_text(secret)
        for text in (secret, secret.partition(":")[2]):
            assert api_secret.is_held_by(at, hide(text))
        assert not api_secret.is_held_by(at, hide("a token of theirs"))


@pytest.mark.slow
def test_headers_of_the_environment_without_our_secret_are_the_users_own(
    foreign: Foreign, groundup: Groundup
) -> None:
    groundup.environment |= {
        "PREFECT_API_URL": foreign.api_url,
        "PREFECT_CLIENT_CUSTOM_HEADERS": '{"X-Mine": "a token of theirs"}',
    }
    groundup.run("up", check=False)
    assert any("X-Mine: a token of theirs" in request for request in foreign.received)


@pytest.mark.slow
def test_our_own_server_may_be_named_with_our_secret(groundup: Groundup) -> None:
    """infra/README.md says how, for other programs."""
    groundup.run("up")
    try:
        groundup.environment |= {
            "PREFECT_API_URL": f"http://127.0.0.1:{groundup.port}/api",
            "PREFECT_API_AUTH_STRING": groundup.secret,
        }
        done = groundup.run("up", check=False)
        assert "would send it our secret" not in done.stderr
        assert "our secret is not sent there" not in done.stderr
        # Another user may listen on the port of [::1], which is "localhost", too.
        groundup.environment["PREFECT_API_URL"] = f"http://localhost:{groundup.port}/api"
        done = groundup.run("up", check=False)
        assert "would send it our secret" in done.stderr
    finally:
        for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
            groundup.environment.pop(name)
        groundup.run("down")
