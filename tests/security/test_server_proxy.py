"""infra/nginx.conf before a real server: TLS outside, and the same rules behind it."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from flows.prefect_host.api_secret import basic
from flows.prefect_host.server_address import Address
from flows.prefect_host.sign_in import new_address
from tests.flows.conftest import REPOSITORY, Groundup, chromium_page, free_port

NAME = "models.example.org"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("proxied"),
    pytest.mark.skipif(
        not shutil.which("nginx"),
        reason="no nginx: infra/install_test_programs.sh installs it where apt may be used",
    ),
]


@dataclass
class Proxied:
    """A server behind nginx, and what a client needs to trust the certificate."""

    groundup: Groundup
    port: int
    trust: ssl.SSLContext

    @property
    def url(self) -> str:
        return f"https://{NAME}:{self.port}"

    def client(self, **settings) -> httpx.Client:
        """Connects to the proxy under its name, which no name server knows."""
        extensions = {"sni_hostname": NAME}
        headers = {"Host": f"{NAME}:{self.port}"} | settings.pop("headers", {})
        client = httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}",
            verify=self.trust,
            trust_env=False,
            headers=headers,
            **settings,
        )
        client.event_hooks["request"].append(lambda request: request.extensions.update(extensions))
        return client


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """`groundup up --url https://…` behind nginx, with infra/nginx.conf but for ports and files."""
    folder = tmp_path_factory.mktemp("proxy")
    certificate, key = _certificate(folder)
    port, behind = free_port(), free_port()
    groundup = Groundup(folder / "home", behind, folder)
    written = (REPOSITORY / "infra" / "nginx.conf").read_text("utf-8")
    for example, ours in {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "127.0.0.1:4200": f"127.0.0.1:{behind}",
        f"/etc/ssl/{NAME}.pem": str(certificate),
        f"/etc/ssl/{NAME}.key": str(key),
    }.items():
        assert example in written
        written = written.replace(example, ours)
    configuration = folder / "nginx.conf"
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log {folder}/access.log;\n{temporary}{written}}}\n"
    )
    groundup.run("up", "--url", f"https://{NAME}:{port}")
    nginx = subprocess.Popen(
        ["nginx", "-p", str(folder), "-c", str(configuration)], stderr=subprocess.DEVNULL
    )
    try:
        _wait_for_port(port)
        yield Proxied(groundup, port, ssl.create_default_context(cafile=str(certificate)))
    finally:
        nginx.terminate()
        nginx.wait(300)
        groundup.run("down", check=False)


def _certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subject = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run(
        [*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    return certificate, key


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 300
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.05)
        else:
            return


def test_up_prints_the_address_outside_and_it_signs_a_browser_in(proxied: Proxied) -> None:
    output = proxied.groundup.run("up").stdout
    address = next(line.split()[1] for line in output.splitlines() if line.startswith("up "))
    assert address.startswith(f"{proxied.url}/sign-in#")
    with chromium_page(f"--host-resolver-rules=MAP {NAME} 127.0.0.1") as page:
        page.goto(address)
        page.wait_for_url(lambda url: "/sign-in" not in url)
        for prefix in ("", "/v2"):
            page.goto(f"{proxied.url}{prefix}/deployments")
            page.get_by_text("build-llm").locator("visible=true").first.wait_for()


def test_through_the_proxy_the_same_rules_hold(proxied: Proxied) -> None:
    right = {"Authorization": f"Basic {basic(proxied.groundup.secret)}"}
    with proxied.client() as client:
        assert client.get("/api/csrf-token?client=x").status_code == 401
        answer = client.get("/api/csrf-token?client=x", headers=right)
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"]
        assert "connect-src 'self'" in answer.headers["content-security-policy"]
        for headers in (
            {"Host": "evil.example"},
            {"Origin": "https://evil.example"},
            {"Origin": f"http://{NAME}:{proxied.port}"},
        ):
            assert (
                client.get("/api/csrf-token?client=x", headers=right | headers).status_code == 403
            )


def test_websockets_pass_the_proxy_for_the_owner_and_for_our_pages_only(proxied: Proxied) -> None:
    def opens(token: str, origin: str | None) -> bool:
        connection = socket.create_connection(("127.0.0.1", proxied.port))
        address = f"wss://{NAME}:{proxied.port}/api/events/out"
        settings = {
            "ssl": proxied.trust,
            "origin": origin,
            "subprotocols": ["prefect"],
            "proxy": None,
        }
        with connect(address, sock=connection, **settings) as opened:
            opened.send(json.dumps({"type": "auth", "token": token}))
            return json.loads(opened.recv(300))["type"] == "auth_success"

    assert opens(proxied.groundup.secret, None)
    assert opens(proxied.groundup.secret, proxied.url)
    with pytest.raises(InvalidStatus):
        opens(proxied.groundup.secret, "https://evil.example")


def test_processes_of_this_machine_still_use_loopback(proxied: Proxied) -> None:
    local = Address(port=proxied.groundup.port)
    assert new_address(local, proxied.groundup.secret).startswith(local.ui_url)
