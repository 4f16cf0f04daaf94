"""Where our server listens, under which names it is known, and which ports are free."""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from data_contracts import ConfigError, GroundupError

LOOPBACK = "127.0.0.1"
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """The address that the server binds, and the one under which a reverse proxy offers it.

    host: an IPv4 address, 0.0.0.0 for all of the machine.
    url: what browsers open where a proxy stands in front, e.g. https://models.example.org.
    """

    host: str = LOOPBACK
    port: int = 4200
    url: str | None = None

    @property
    def local_host(self) -> str:
        """What processes on this machine connect to."""
        return LOOPBACK if self.host == "0.0.0.0" else self.host

    @property
    def api_url(self) -> str:
        return f"http://{self.local_host}:{self.port}/api"

    @property
    def ui_url(self) -> str:
        """What a person opens."""
        return self.url or self.api_url.removesuffix("/api")

    @property
    def origins(self) -> frozenset[str]:
        """The origins whose pages may speak to the server: its own, under each of its names."""
        names = {LOOPBACK, "localhost", self.local_host}
        own = {f"http://{name}:{self.port}" for name in names}
        return frozenset(_without_default_port(origin) for origin in own | {self.ui_url})

    @property
    def hosts(self) -> frozenset[str]:
        """The values of a request's `Host` that are known; others are names that somebody made up."""
        return frozenset(_spellings(self.origins))

    def options(self) -> list[str]:
        """As arguments of `python -m flows.prefect_host.prefect_server`."""
        public = ["--url", self.url] if self.url else []
        return ["--host", self.host, "--port", str(self.port), *public]

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


def wanted(host: str | None, port: int | None, url: str | None) -> Address:
    """The address that somebody asks for; what is not given is usual: 127.0.0.1, GROUNDUP_PORT or 4200.

    Raises:
        ConfigError: no such address, or one that would show the secret to a network.
    """
    address = Address(_checked_host(host or LOOPBACK), port or usual_port(), _checked_url(url))
    if address.host != LOOPBACK and not address.url:
        why = (
            "other machines would reach the server under a name that it does not know, without TLS"
        )
        fix = f"put a reverse proxy in front and name it: groundup up --host {address.host} --url https://…"
        raise ConfigError(f"--host {address.host}", why, f"{fix} (infra/README.md)")
    return address


def usual_port() -> int:
    """GROUNDUP_PORT, else 4200."""
    text = os.environ.get("GROUNDUP_PORT", "4200")
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        raise ConfigError(f"GROUNDUP_PORT={text}", "is not a port", "give a number from 1 to 65535")
    return int(text)


def listen(address: Address, or_any_port: bool = False) -> tuple[socket.socket, Address]:
    """A socket that listens there, or on a port that is free; and where.

    Raises GroundupError if no server of ours can listen there.
    """
    try:
        return _listening(address), address
    except OSError as error:
        if not or_any_port:
            barred = (
                "is kept for root by the system"
                if isinstance(error, PermissionError)
                else "is taken by another program"
            )
            raise GroundupError(
                f"port {address.port}", barred, f"groundup up --port {any_port()}"
            ) from None
    free = _listening(replace(address, port=0))
    return free, replace(address, port=free.getsockname()[1])


def _listening(address: Address) -> socket.socket:
    return socket.create_server((address.host, address.port), backlog=2048)  # as uvicorn has it


def any_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _checked_host(text: str) -> str:
    text = LOOPBACK if text == "localhost" else text
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError as error:
        fix = "give one of this machine, or 0.0.0.0 for all of them"
        raise ConfigError(f"--host {text}", "is not an IPv4 address", fix) from error


def _checked_url(text: str | None) -> str | None:
    if text is None:
        return None
    fix = "give what browsers open, e.g. https://models.example.org"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"--url {text}", "is not an address", fix) from error
    named = parts.scheme in DEFAULT_PORTS and parts.hostname
    if not named or parts.username or parts.password:
        raise ConfigError("--url", "is not an address of the form https://HOST[:PORT]", fix)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError(
            f"--url {text}", "has a path; the server stands at the root of a host", fix
        )
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        why = "would send the secret over the network in the clear"
        raise ConfigError(
            f"--url {text}",
            why,
            "let a reverse proxy add TLS (infra/README.md), and give https://…",
        )
    origin = f"{parts.scheme}://{parts.netloc.lower()}"
    return _without_default_port(origin) if port else origin


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _without_default_port(origin: str) -> str:
    """As browsers write an origin: without the port that its scheme implies."""
    parts = urlsplit(origin)
    return origin.removesuffix(f":{DEFAULT_PORTS[parts.scheme]}")


def _spellings(origins: frozenset[str]) -> set[str]:
    """Each host as `Host` may spell it: a default port may stand there or not."""
    found = set()
    for origin in origins:
        parts = urlsplit(origin)
        found.add(parts.netloc)
        if parts.port is None:
            found.add(f"{parts.netloc}:{DEFAULT_PORTS[parts.scheme]}")
    return found
