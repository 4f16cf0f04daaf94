"""Which addresses the server may have, and which names it is then known under."""

from __future__ import annotations

import pytest

from data_contracts import ConfigError
from flows.prefect_host import server_address
from flows.prefect_host.server_address import Address, wanted


def test_the_server_is_known_on_loopback_only_unless_somebody_names_it() -> None:
    address = wanted(None, 4300, None)
    assert address.host == "127.0.0.1"
    assert address.hosts == {"127.0.0.1:4300"}
    assert address.origins == {"http://127.0.0.1:4300"}


def test_another_address_of_loopback_needs_no_proxy_and_is_the_only_one_it_is_known_under() -> None:
    address = wanted("127.12.13.14", 4300, None)
    assert address.api_url == "http://127.12.13.14:4300/api"
    assert address.hosts == {"127.12.13.14:4300"}
    assert server_address.from_options(address.options()) == address


def test_a_name_behind_a_proxy_is_known_with_and_without_the_port_that_its_scheme_implies() -> None:
    address = wanted(None, 4300, "https://Models.example.org:443/")
    assert address.ui_url == "https://models.example.org"
    assert address.hosts > {"models.example.org", "models.example.org:443"}
    assert "https://models.example.org" in address.origins
    assert "http://models.example.org" not in address.origins


def test_processes_of_this_machine_reach_a_server_that_listens_everywhere_on_loopback() -> None:
    address = wanted("0.0.0.0", 4300, "https://models.example.org")
    assert address.api_url == "http://127.0.0.1:4300/api"
    assert "0.0.0.0:4300" not in address.hosts


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", None),
        ("10.0.0.5", None),
        ("models.example.org", "https://models.example.org"),
        ("0.0.0.0", "http://models.example.org"),
        ("0.0.0.0", "http://10.0.0.5:4200"),
        (None, "https://models.example.org/groundup"),
        (None, "https://models.example.org/?x"),
        (None, "https://you:secret@models.example.org"),
        (None, "ftp://models.example.org"),
        (None, "https://models.example.org:port"),
        (None, "models.example.org"),
        (None, ""),
    ],
)
def test_an_address_that_would_show_the_secret_or_is_none_is_refused(
    host: str | None, url: str | None
) -> None:
    with pytest.raises(ConfigError) as refused:
        wanted(host, 4300, url)
    assert "secret@" not in str(refused.value), "credentials are not repeated"


def test_a_container_may_publish_the_server_on_the_loopback_of_its_host() -> None:
    assert wanted("0.0.0.0", 4200, "http://127.0.0.1:8080").ui_url == "http://127.0.0.1:8080"


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "[::1]"])
def test_a_name_that_a_browser_may_look_for_at_another_users_server_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"write 127\.0\.0\.1 instead"):
        wanted(None, 4200, f"http://{name}:4200")


@pytest.mark.parametrize("text", ["", "http", "0", "65536", "４２００", "-1"])
def test_a_port_in_the_environment_that_is_none_says_so(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("GROUNDUP_PORT", text)
    with pytest.raises(ConfigError, match="is not a port"):
        server_address.usual_port()


def test_the_command_line_of_a_server_gives_its_address_back() -> None:
    for address in (Address(), Address("0.0.0.0", 4300, "https://models.example.org")):
        command = ["-m", "flows.prefect_host.prefect_server", "--socket", "3", *address.options()]
        assert server_address.from_options(command) == address


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--port", "4200"],
        ["--host"],
        ["--host", "evil.example", "--port", "4200"],
        ["--host", "127.0.0.1", "--port", "-1"],
        ["--host", "0.0.0.0", "--port", "4200"],
    ],
)
def test_a_command_line_that_names_no_address_of_ours_gives_none(options: list[str]) -> None:
    assert server_address.from_options(options) is None
