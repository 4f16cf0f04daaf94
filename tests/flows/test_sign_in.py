"""One-time codes, the page that exchanges them, and the names under which the server answers."""

from __future__ import annotations

import base64

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from flows.prefect_host import sign_in
from flows.prefect_host.known_hosts import KnownHosts
from flows.prefect_host.server_address import Address
from flows.prefect_host.sign_in import (
    CODES_PATH,
    LIFETIME_S,
    MAX_CODES,
    PAGE_PATH,
    Codes,
    SignIn,
)

SECRET = "groundup:" + "s" * 43
ADDRESS = Address(port=4200, url="https://models.example.org")
HOME = "http://127.0.0.1:4200"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def behind(scope, receive, send):  # what stands for Prefect
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})
        return
    await PlainTextResponse("inside")(scope, receive, send)


@pytest.fixture
def codes() -> Codes:
    return Codes(Clock())


@pytest.fixture
def client(codes: Codes) -> TestClient:
    return TestClient(KnownHosts(SignIn(behind, SECRET, codes), ADDRESS), base_url=HOME)


def test_a_code_is_good_once(codes: Codes) -> None:
    code = codes.issue()
    assert codes.redeem(code)
    assert not codes.redeem(code)


def test_a_code_ends_after_ten_minutes() -> None:
    clock = Clock()
    codes = Codes(clock)
    early, late = codes.issue(), codes.issue()
    clock.now += LIFETIME_S - 1
    assert codes.redeem(early)
    clock.now += 1
    assert not codes.redeem(late)


def test_codes_that_nobody_redeems_do_not_fill_the_memory(codes: Codes) -> None:
    issued = [codes.issue() for _ in range(MAX_CODES + 1)]
    assert len(set(issued)) == MAX_CODES + 1
    assert not codes.redeem(issued[0])
    assert all(codes.redeem(code) for code in issued[1:])


def test_the_page_exchanges_a_code_for_what_the_uis_read_and_only_once(
    client: TestClient, codes: Codes
) -> None:
    code = codes.issue()
    for method in ("GET", "HEAD"):
        assert client.request(method, PAGE_PATH, params={"code": code}).status_code == 200
    answer = client.post(PAGE_PATH, content=code, headers={"Origin": HOME})
    assert base64.b64decode(answer.json()["password"]).decode() == SECRET
    assert answer.headers["cache-control"] == "no-store"
    again = client.post(PAGE_PATH, content=code, headers={"Origin": HOME})
    assert (again.status_code, again.text) == (403, sign_in.USED_UP)


@pytest.mark.parametrize("body", [b"", b"x", b"\xff\xfe", b"c" * 100_000])
def test_other_bodies_get_nothing(client: TestClient, codes: Codes, body: bytes) -> None:
    codes.issue()
    assert client.post(PAGE_PATH, content=body).status_code == 403


@pytest.mark.parametrize(
    "credentials", [None, "", "Basic", "Basic Og==", "Bearer x", "Basic ÿ".encode("latin-1")]
)
def test_codes_are_for_who_has_the_secret(client: TestClient, credentials: str | None) -> None:
    headers = {"Authorization": credentials} if credentials is not None else {}
    assert client.post(CODES_PATH, headers=headers).status_code == 401
    right = "Basic " + base64.b64encode(SECRET.encode()).decode()
    assert client.post(CODES_PATH, headers={"Authorization": right}).status_code == 200


@pytest.mark.parametrize("text", ["groundup:é", "é", "\x80"])
def test_credentials_that_prefect_cannot_compare_are_refused_before_it_sees_them(
    client: TestClient, text: str
) -> None:
    credentials = base64.b64encode(text.encode("latin-1")).decode()
    for path in ("/api/version", "/api/health", CODES_PATH):
        for blank in (" ", "\t", "  "):
            headers = {"Authorization": f"Basic{blank}{credentials}"}
            assert client.post(path, headers=headers).status_code == 401


def test_the_page_runs_its_own_script_only_and_each_time_under_a_new_nonce(
    client: TestClient,
) -> None:
    pages = [client.get(PAGE_PATH) for _ in range(2)]
    policies = [page.headers["content-security-policy"] for page in pages]
    assert policies[0] != policies[1]
    for page, policy in zip(pages, policies, strict=True):
        nonce = policy.split("script-src 'nonce-")[1].split("'")[0]
        assert f'<script nonce="{nonce}">' in page.text
        assert policy.startswith("default-src 'none'; ")
        assert "://" not in page.text, "nothing of others"
        assert SECRET not in page.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", [PAGE_PATH, CODES_PATH])
def test_other_methods_do_nothing(client: TestClient, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 405


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:4200",
        "models.example.org",
        "models.example.org:443",
    ],
)
def test_its_own_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).text == "inside"


FOREIGN_HOSTS = [
    "evil.example:4200",
    "127.0.0.1",
    "127.0.0.1:4201",
    "localhost",
    "localhost:4200",
    "",
    "127.0.0.1:4200.evil.example",
    "127.0.0.1:4200@evil.example",
    "evil.example#127.0.0.1:4200",
    "models.example.org.evil.example",
    "0.0.0.0:4200",
    "[::1]:4200",
]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_foreign_name_is_refused_for_http_and_websockets(client: TestClient, host: str) -> None:
    for path in ("/", "/api/csrf-token", PAGE_PATH, "/api/health"):
        assert client.get(path, headers={"Host": host}).status_code == 403
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/api/events/out", headers={"Host": host}),
    ):
        pass


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "https://127.0.0.1:4200",
        "http://127.0.0.1",
        "http://models.example.org",
        "",
    ],
)
def test_a_page_of_another_origin_is_refused_for_http_and_websockets(
    client: TestClient, codes: Codes, origin: str
) -> None:
    code = codes.issue()
    assert client.post(PAGE_PATH, content=code, headers={"Origin": origin}).status_code == 403
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/api/events/in", headers={"Origin": origin}),
    ):
        pass
    assert codes.redeem(code), "it was not used up by that"


def test_own_pages_and_programs_may_open_websockets(client: TestClient) -> None:
    for headers in ({}, {"Origin": HOME}, {"Origin": "https://models.example.org"}):
        with client.websocket_connect(
            "/api/events/out", headers={"Host": "127.0.0.1:4200"} | headers
        ):
            pass


def test_a_request_with_two_names_is_refused(client: TestClient) -> None:
    headers = [("Host", "127.0.0.1:4200"), ("Host", "evil.example")]
    assert client.get("/", headers=headers).status_code == 403


def test_every_answer_says_what_its_page_may_do(client: TestClient) -> None:
    for answer in (
        client.get("/"),
        client.get("/", headers={"Host": "evil.example"}),
        client.get(PAGE_PATH),
    ):
        policy = answer.headers["content-security-policy"]
        assert "connect-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert "img-src 'self' data:;" in client.get("/").headers["content-security-policy"]
