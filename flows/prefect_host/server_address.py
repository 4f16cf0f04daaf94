"""The address of our server: host, port, the names under which it is known, and free ports."""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from data_contracts import ConfigError, GroundupError

LOOPBACK = "127.0.0.1"
DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_PORT = 65535
BACKLOG = 2048  # uvicorn's default


@dataclass(frozen=True)
class Address:
    """The address that the server binds, and the URL under which a reverse proxy offers it.

    Attributes:
        host: An IPv4 address; 0.0.0.0 for all addresses of the machine.
        port: A TCP port.
        url: What browsers open if a reverse proxy is in front, e.g. https://models.example.org.
    """

    host: str = LOOPBACK
    port: int = 4200
    url: str | None = None

    @property
    def local_host(self) -> str:
        """The address to which processes on this machine connect."""
        return LOOPBACK if self.host == "0.0.0.0" else self.host

    @property
    def api_url(self) -> str:
        """The URL of Prefect's API for processes on this machine."""
        return f"http://{self.local_host}:{self.port}/api"

    @property
    def ui_url(self) -> str:
        """The URL that a person opens in a browser."""
        return self.url or self.api_url.removesuffix("/api")

    @property
    def origins(self) -> frozenset[str]:
        """The origins whose pages may call the server: its own, under each of its names."""
        # Not "localhost": browsers look for that at ::1 first, where another user may listen.
        own = f"http://{self.local_host}:{self.port}"
        return frozenset(_without_default_port(origin) for origin in (own, self.ui_url))

    @property
    def hosts(self) -> frozenset[str]:
        """The values of the header `Host` that the server accepts."""
        return frozenset(_host_headers(self.origins))

    def options(self) -> list[str]:
        """Return the arguments for `python -m flows.prefect_host.prefect_server`."""
        public = ["--url", self.url] if self.url else []
        return ["--host", self.host, "--port", str(self.port), *public]


def from_options(options: list[str]) -> Address | None:
    """Return the address in the command line of a server, which `Address.options` made.

    Returns:
        None if it names no host, as that of a server that lets everybody in, or is no such address.
    """
    found = {}
    for name in ("--host", "--port", "--url"):
        if name in options[:-1]:
            found[name] = options[options.index(name) + 1]
    if "--host" not in found or not found.get("--port", "").isdecimal():
        return None
    try:
        return wanted(found["--host"], int(found["--port"]), found.get("--url"))
    except ConfigError:
        return None


def wanted(host: str | None, port: int | None, url: str | None) -> Address:
    """Return the address that was asked for.

    Args:
        host: An IPv4 address or "localhost"; None for 127.0.0.1.
        port: A TCP port; None for GROUNDUP_PORT or 4200.
        url: The URL under which a reverse proxy offers the server, if there is one.

    Raises:
        ConfigError: The address is invalid, or would show the secret to a network.
    """
    address = Address(_checked_host(host or LOOPBACK), port or usual_port(), _checked_url(url))
    if not is_ipv4_loopback(address.host) and not address.url:
        raise ConfigError(
            f"--host {address.host}",
            "other machines would reach the server under a name that it does not know, without TLS",
            "put a reverse proxy in front and name it: "
            f"groundup up --host {address.host} --url https://… (infra/README.md)",
        )
    return address


def usual_port() -> int:
    """Return the port of GROUNDUP_PORT, or 4200.

    Raises:
        ConfigError: GROUNDUP_PORT is not a port.
    """
    text = os.environ.get("GROUNDUP_PORT", "4200")
    # Python refuses to read a number of thousands of digits.
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_PORT))
    if not is_number or not 0 < int(text) <= MAX_PORT:
        raise ConfigError(
            f"GROUNDUP_PORT={text}", "is not a port", f"set a number from 1 to {MAX_PORT}"
        )
    return int(text)


def listen(address: Address, or_any_port: bool = False) -> tuple[socket.socket, Address]:
    """Open a listening socket at an address.

    Args:
        address: Where to listen.
        or_any_port: Whether to listen on any free port if that of the address is not available.

    Returns:
        The socket, and the address at which it listens.

    Raises:
        GroundupError: The port is not available.
    """
    try:
        return _listening_socket(address), address
    except OSError as error:
        if not or_any_port:
            why = "is taken by another program"
            if isinstance(error, PermissionError):
                why = "is kept for root by the system"
            raise GroundupError(
                f"port {address.port}", why, f"groundup up --port {any_port()}"
            ) from None
    listening = _listening_socket(replace(address, port=0))
    return listening, replace(address, port=listening.getsockname()[1])


def _listening_socket(address: Address) -> socket.socket:
    return socket.create_server((address.host, address.port), backlog=BACKLOG)


def any_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _checked_host(text: str) -> str:
    text = LOOPBACK if text == "localhost" else text
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError as error:
        raise ConfigError(
            f"--host {text}",
            "is not an IPv4 address",
            "give an address of this machine, or 0.0.0.0 for all of them",
        ) from error


def _checked_url(text: str | None) -> str | None:
    if text is None:
        return None
    fix = "give the URL that browsers open, e.g. https://models.example.org"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"--url {text}", "is not an address", fix) from error
    named = parts.scheme in DEFAULT_PORTS and parts.hostname
    if not named or parts.username or parts.password:
        raise ConfigError("--url", "is not an address of the form https://HOST[:PORT]", fix)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError(f"--url {text}", "has a path; the server is at the root of a host", fix)
    if parts.scheme == "http":
        _require_ipv4_loopback(text, parts.hostname or "")
    origin = f"{parts.scheme}://{parts.netloc.lower()}"
    return _without_default_port(origin) if port else origin


def _require_ipv4_loopback(url: str, host: str) -> None:
    """Refuse a URL without TLS under which something else than our server may answer."""
    if is_ipv4_loopback(host):
        return
    if host in ("localhost", "::1"):
        raise ConfigError(
            f"--url {url}",
            "may lead a browser to [::1], where another user can listen and take your sign-in",
            f"write 127.0.0.1 instead of {host}",
        )
    raise ConfigError(
        f"--url {url}",
        "would send the secret over the network in the clear",
        "let a reverse proxy add TLS (infra/README.md), and give https://…",
    )


def is_ipv4_loopback(host: str) -> bool:
    """Return whether `host` is an address of 127.0.0.0/8."""
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False


def _without_default_port(origin: str) -> str:
    """Write an origin as browsers do: without the default port of its scheme."""
    parts = urlsplit(origin)
    return origin.removesuffix(f":{DEFAULT_PORTS[parts.scheme]}")


def _host_headers(origins: frozenset[str]) -> set[str]:
    """Return the hosts as `Host` may contain them: with or without a default port."""
    found = set()
    for origin in origins:
        parts = urlsplit(origin)
        found.add(parts.netloc)
        if parts.port is None:
            found.add(f"{parts.netloc}:{DEFAULT_PORTS[parts.scheme]}")
    return found
