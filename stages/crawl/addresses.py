"""Which machines the crawler may connect to: public ones, and those that the settings name.

The check comes after name resolution and before the connection, on the addresses that are then
used. So a name that resolves differently the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NUMBER = r"(?:0x[0-9a-f]*|[0-9]*)"
_LIKE_AN_ADDRESS = re.compile(
    rf"{_NUMBER}(?:\.{_NUMBER})*|.*:.*", re.IGNORECASE
)  # 127.1, 2130706433, 0177.0.0.1, 0x7f.1


class NotPublicError(OSError):
    """The address is private, loopback, link-local or otherwise not public."""


class Guard(AbstractResolver):
    """Resolves names, and refuses addresses that are not public.

    Pairs of host and port in `allowed` are exceptions.
    """

    def __init__(self, allowed: set[tuple[str, int]]):
        self.allowed = allowed
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        for one in found:
            self.check(host, port, one["host"])
        return found

    def check(self, host: str, port: int, address: str) -> None:
        """Raise NotPublicError unless `address` (of `host`) may be connected to."""
        if (host, port) not in self.allowed and not is_public(address):
            raise NotPublicError(f"{host} is {address}, which is not a public address")

    def check_literal(self, host: str, port: int) -> None:
        """Check a host that is an address already, and is therefore never resolved.

        An address in an unusual spelling, such as 127.1, is always refused: no name looks like it,
        and programs disagree about its meaning.

        Raises:
            NotPublicError: The address may not be connected to.
        """
        try:
            ipaddress.ip_address(host)
        except ValueError:
            if _LIKE_AN_ADDRESS.fullmatch(host) and (host, port) not in self.allowed:
                raise NotPublicError(
                    f"{host} is neither a name nor an address as addresses are written"
                ) from None
            return
        self.check(host, port, host)

    async def close(self) -> None:
        await self._resolver.close()


def is_public(address: str) -> bool:
    """Return whether an address is public. IPv4 inside IPv6 is judged as IPv4."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved
