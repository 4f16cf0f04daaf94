"""The server admits its owner alone. Other users, pages and requests attack a real server."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prefect.server.api.server import API_ROUTERS
from prefect.workers.process import ProcessWorker
from starlette.routing import WebSocketRoute
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from flows.prefect_host.api_secret import basic
from flows.prefect_host.job_template import CLOSED
from tests.flows.conftest import REPOSITORY, Groundup

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("attacked")]

OPEN_TO_ALL = {"/api/health", "/api/ready"}
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


def _as_nobody(*command: str) -> subprocess.CompletedProcess[str]:
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return subprocess.run([*become, *command], capture_output=True, text=True, check=False, cwd="/")


def _processes(groundup: Groundup) -> list[psutil.Process]:
    """The server and the worker."""
    records = [groundup.home / "prefect" / f"{name}.json" for name in ("server", "worker")]
    return [psutil.Process(json.loads(record.read_text())["pid"]) for record in records]


def _anonymous(groundup: Groundup, **settings: Any) -> httpx.Client:
    return httpx.Client(base_url=groundup.url, trust_env=False, **settings)


def test_the_secret_is_in_one_file_that_its_owner_alone_reads_and_on_no_command_line(
    attacked: Groundup,
) -> None:
    file = attacked.home / "prefect" / "api-secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = attacked.secret.encode()
    for found in attacked.home.rglob("*"):
        if found.is_file() and found != file:
            content = found.read_bytes()
            assert secret not in content, found
            assert basic(attacked.secret).encode() not in content, found
    password = attacked.secret.split(":")[1]
    for process in _processes(attacked):
        assert password not in " ".join(process.cmdline())


@as_root
def test_another_user_of_the_machine_reads_it_neither_from_the_file_nor_from_a_process(
    attacked: Groundup,
) -> None:
    assert _as_nobody("ls", str(attacked.home.parent)).returncode == 0, "up to here they may look"
    assert "Permission denied" in _as_nobody("cat", f"{attacked.home}/prefect/api-secret").stderr
    for process in _processes(attacked):
        assert "PREFECT_API_AUTH_STRING" in process.environ()
        assert "Permission denied" in _as_nobody("cat", f"/proc/{process.pid}/environ").stderr


@as_root
def test_another_user_of_the_machine_gets_no_token_and_starts_no_run(attacked: Groundup) -> None:
    identity = attacked.deployment("build-llm")["id"]
    attack = f"""
import json, sys, urllib.error, urllib.request
def ask(path, headers={{}}, body=None):
    headers = headers | {{"Content-Type": "application/json"}}
    request = urllib.request.Request("{attacked.url}/api" + path, body, headers)
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code
body = json.dumps({{"job_variables": {{"command": "sh -c id"}}}}).encode()
token = {{"Prefect-Csrf-Token": "x", "Prefect-Csrf-Client": "x"}}
started = ask("/deployments/{identity}/create_flow_run", token, body)
print(ask("/health"), ask("/csrf-token?client=x"), started)
"""
    done = _as_nobody("/usr/bin/env", "python3", "-c", attack)
    assert done.stdout == "200 401 403\n", done.stderr


def test_no_path_of_the_api_answers_without_the_secret_but_two(attacked: Groundup) -> None:
    paths = _api(attacked)
    assert len(paths) > 150
    wrong = {"Authorization": f"Basic {basic('groundup:' + 'x' * 43)}"}
    with _anonymous(attacked) as client:
        for method, path in paths:
            for headers in ({}, wrong):
                status = client.request(method, path, headers=headers).status_code
                expected = {200} if path in OPEN_TO_ALL else {401, 403}
                assert status in expected, (method, path, status)


def test_spellings_of_the_open_paths_do_not_open_others(attacked: Groundup) -> None:
    spellings = [
        "/api//csrf-token",
        "/api/health/../csrf-token?client=x",
        "/api/csrf-token;/health?client=x",
        "//api/csrf-token?client=x",
        "/api/%63srf-token?client=x",
        "/API/csrf-token?client=x",
        "/api/csrf-token%2f..%2fhealth?client=x",
        "/api/api/csrf-token?client=x",
    ]
    with _anonymous(attacked) as client:
        for spelling in spellings:
            answer = client.get(
                spelling, headers={"X-Original-URL": "/api/health", "X-Forwarded-Prefix": "/api"}
            )
            assert "token" not in answer.text or answer.headers["content-type"].startswith(
                "text/html"
            ), spelling


def test_a_foreign_name_that_resolves_to_loopback_reads_nothing_even_with_the_secret(
    attacked: Groundup,
) -> None:
    headers = {
        "Host": f"rebound.example:{attacked.port}",
        "Authorization": f"Basic {basic(attacked.secret)}",
    }
    with _anonymous(attacked) as client:
        for path in (
            "/",
            "/v2",
            "/ui-settings",
            "/api/health",
            "/api/csrf-token?client=x",
            "/sign-in",
        ):
            assert client.get(path, headers=headers).status_code == 403
            forwarded = headers | {"X-Forwarded-Host": f"127.0.0.1:{attacked.port}"}
            assert client.get(path, headers=forwarded).status_code == 403


def test_a_page_from_elsewhere_can_neither_start_a_run_nor_read(attacked: Groundup) -> None:
    identity = attacked.deployment("build-llm")["id"]
    headers = {"Origin": "http://evil.example", "Authorization": f"Basic {basic(attacked.secret)}"}
    with _anonymous(attacked, headers=headers) as client:
        answers = [
            client.post(f"/api/deployments/{identity}/create_flow_run", json={}),
            client.get("/api/csrf-token", params={"client": "x"}),
            client.options("/api/flow_runs/", headers={"Access-Control-Request-Method": "POST"}),
        ]
    for answer in answers:
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


def _websockets() -> Iterator[str]:
    for router in API_ROUTERS:
        for route in router.routes:
            if isinstance(route, WebSocketRoute):
                yield "/api" + route.path.replace("{", "").replace("}", "")


def test_no_websocket_opens_without_the_secret_or_for_another_origin(attacked: Groundup) -> None:
    paths = list(_websockets())
    assert {"/api/events/in", "/api/events/out", "/api/logs/out"} <= set(paths)
    for path in paths:
        for token in (None, "", "groundup:wrong"):
            assert not _opens(attacked, path, token), (path, token)
        assert not _opens(attacked, path, None, subprotocol=None), path
        for origin in ("http://evil.example", "null"):
            assert not _opens(attacked, path, attacked.secret, origin=origin), (path, origin)
        name = f"rebound.example:{attacked.port}"
        assert not _opens(attacked, path, attacked.secret, name=name), path
    assert _opens(attacked, "/api/events/out", attacked.secret)
    assert _opens(attacked, "/api/events/out", attacked.secret, origin=attacked.url)


def _opens(
    groundup: Groundup,
    path: str,
    token: str | None,
    origin: str | None = None,
    subprotocol: str | None = "prefect",
    name: str | None = None,
) -> bool:
    """Return whether the server accepts the handshake and the token. name: another host to name."""
    address = f"ws://127.0.0.1:{groundup.port}{path}"
    protocols = [subprotocol] if subprotocol else None
    connection = None
    if name:
        address = f"ws://{name}{path}"
        connection = socket.create_connection(("127.0.0.1", groundup.port))
    try:
        with connect(
            address, sock=connection, origin=origin, subprotocols=protocols, proxy=None
        ) as opened:
            opened.send(json.dumps({"type": "auth", "token": token}))
            return json.loads(opened.recv(300))["type"] == "auth_success"
    except (InvalidStatus, ConnectionClosed):
        return False


def test_an_event_that_somebody_forges_is_not_stored(attacked: Groundup) -> None:
    name = "made.up.by.a.stranger"
    event = {
        "event": name,
        "resource": {"prefect.resource.id": "x"},
        "occurred": "2026-01-01T00:00:00Z",
        "id": "0" * 32,
    }
    try:
        with connect(f"ws://127.0.0.1:{attacked.port}/api/events/in", proxy=None) as opened:
            opened.send(json.dumps(event))
            opened.recv(300)
    except (InvalidStatus, ConnectionClosed):
        pass
    else:
        pytest.fail("it was taken")
    found = attacked.api(
        "/events/filter",
        filter={"event": {"name": [name]}, "occurred": {"since": "2025-12-31T00:00:00Z"}},
    )
    assert found["events"] == []


def test_a_request_chooses_neither_command_nor_folder_nor_environment_of_a_run(
    attacked: Groundup, tmp_path: Path
) -> None:
    """The server takes all of these with Prefect's template. `up` ends that and says so.

    Until then the worker leaves them out.
    """
    marker = attacked.folder / "marker"
    hostile = {"command": f"sh -c 'touch {marker}; exit 1'"}
    pool = "/work_pools/groundup"
    attacked.api(pool, "PATCH", base_job_template=ProcessWorker.get_default_base_job_template())
    attacked.api(
        "/work_pools/",
        name="others",
        type="process",
        base_job_template=ProcessWorker.get_default_base_job_template(),
    )
    run = _start(attacked, hostile)
    assert _end(attacked, run) == "FAILED"
    assert not marker.exists()

    output = attacked.run("up").stdout
    for name in ("groundup", "others"):
        assert f"work pool {name}: requests choose no command" in output
        template = attacked.api(f"/work_pools/{name}")["base_job_template"]
        assert not CLOSED & (
            template["variables"]["properties"].keys() | template["job_configuration"].keys()
        )
    assert "work pool" not in attacked.run("up").stdout, "said once"

    for variables in (hostile, {"env": {"X": "y"}}, {"env.X": "y"}, {"working_dir": "/"}):
        with pytest.raises(httpx.HTTPStatusError, match=r"'4(09|22) "):
            _start(attacked, variables)
    # The server checks nothing if a pool lists no variables: the worker has to leave them out.
    for variables in (
        hostile,
        {"env": {"GROUNDUP_FOLDER": str(tmp_path), "PATH": str(tmp_path)}},
        {"working_dir": str(tmp_path)},
    ):
        run = _start_unchecked(attacked, variables)
        assert _end(attacked, run) == "FAILED", (
            "by the flow itself, for want of a run called none: so it was ours that ran"
        )
    assert not marker.exists()


def _start(groundup: Groundup, job_variables: dict[str, Any]) -> str:
    identity = groundup.deployment("rerun")["id"]
    body = {"job_variables": job_variables, "parameters": {"name": "none", "stage": "clean"}}
    return groundup.api(f"/deployments/{identity}/create_flow_run", **body)["id"]


def _start_unchecked(groundup: Groundup, job_variables: dict[str, Any]) -> str:
    """A run whose variables passed the server's checks; the job_configuration still protects."""
    template = groundup.api("/work_pools/groundup")["base_job_template"]
    unchecked = template | {"variables": template["variables"] | {"additionalProperties": True}}
    groundup.api("/work_pools/groundup", "PATCH", base_job_template=unchecked)
    try:
        return _start(groundup, job_variables)
    finally:
        groundup.api("/work_pools/groundup", "PATCH", base_job_template=template)


def _end(groundup: Groundup, run: str) -> str:
    """Wait for the end of a run and return the type of its state."""
    ended = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
    _wait_until(lambda: groundup.api(f"/flow_runs/{run}")["state_type"] in ended)
    return groundup.api(f"/flow_runs/{run}")["state_type"]


def _wait_until(happened: Any) -> None:
    deadline = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_up_again_prints_a_new_address_and_each_signs_in_once(attacked: Groundup) -> None:
    addresses = [_address(attacked) for _ in range(2)]
    assert addresses[0] != addresses[1]
    with _anonymous(attacked, headers={"Origin": attacked.url}) as client:
        for address in addresses:
            code = address.partition("#")[2]
            assert client.get(address).status_code == 200, (
                "a preview of the link does not use it up"
            )
            assert client.post("/sign-in", content=code).json() == {
                "password": basic(attacked.secret)
            }
            assert client.post("/sign-in", content=code).status_code == 403


def _address(groundup: Groundup) -> str:
    (line,) = [line for line in groundup.run("up").stdout.splitlines() if line.startswith("up ")]
    return line.split()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_no_server_starts_without_a_secret(host: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [
        sys.executable,
        "-m",
        "flows.prefect_host.prefect_server",
        "--host",
        host,
        "--url",
        "https://models.example.org",
    ]
    for secret in ({}, {"PREFECT_SERVER_API_AUTH_STRING": ""}):
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=kept | secret,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 1
        assert "the server would let everybody in" in done.stderr


def test_up_on_an_address_of_the_network_needs_a_name_with_tls(attacked: Groundup) -> None:
    done = attacked.run("up", "--host", "0.0.0.0", check=False)
    assert done.returncode == 2
    assert "without TLS" in done.stderr
    assert (
        "groundup is up on host 127.0.0.1"
        in attacked.run(
            "up", "--host", "0.0.0.0", "--url", "https://models.example.org", check=False
        ).stderr
    )


def test_it_listens_on_loopback_only(attacked: Groundup) -> None:
    server = _processes(attacked)[0]
    listening = [
        one.laddr for one in server.net_connections("inet") if one.status == psutil.CONN_LISTEN
    ]
    assert [tuple(address) for address in listening] == [("127.0.0.1", attacked.port)]


def _api(groundup: Groundup) -> list[tuple[str, str]]:
    """Return every method and path of the API's schema."""
    with _anonymous(groundup) as client:
        schema = client.get("/openapi.json").raise_for_status().json()
    found = []
    for path, methods in schema["paths"].items():
        full_path = path if path.startswith("/api") else "/api" + path
        found += [(method.upper(), full_path) for method in methods]
    return found
