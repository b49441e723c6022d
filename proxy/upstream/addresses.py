"""Which addresses an upstream may be contacted at, and the look-up that checks them.

Every address of a name is checked, and the connection goes to a checked address, never to the
name: a second look-up could answer differently (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from proxy.upstream.errors import UpstreamAddressRefused, UpstreamUnreachable

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

ADDRESSES_MAX = 16
"""Addresses of one name that are checked and tried; the rest is ignored."""

_NAT64 = IPv6Network("64:ff9b::/96")
_SITE_PREFIXES = (IPv4Network("192.88.99.0/24"), IPv6Network("fec0::/10"))


async def system_resolve(host: str, port: int) -> list[str]:
    """Ask the system's resolver, off the event loop; its order of preference is kept."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class AddressPolicy:
    """Public addresses, and those the operator listed.

    A listed host name opens loopback and private ranges for that host, never link-local,
    multicast or unspecified ones (cloud metadata services are link-local): those need their
    address listed. Raises ValueError for an entry that is neither a name nor a network.
    """

    __slots__ = ("_hosts", "_networks")

    def __init__(self, allowed: Sequence[str]) -> None:
        networks = [_network(entry) for entry in allowed]
        self._networks = [network for network in networks if network is not None]
        self._hosts = frozenset(
            entry.lower().rstrip(".")
            for entry, network in zip(allowed, networks, strict=True)
            if network is None
        )

    def check(self, host: str, address: str) -> str:
        """Return the address in canonical form. Raises UpstreamAddressRefused."""
        found = _unwrapped(ip_address(address))
        if not (_is_public(found) or self._is_listed(host, found)):
            raise UpstreamAddressRefused(f"{host} leads to {found}, not a listed one", sent=False)
        return address

    def _is_listed(self, host: str, address: Address) -> bool:
        if any(address in network for network in self._networks):
            return True
        return host.lower() in self._hosts and not _is_never_by_name(address)


class AddressBook:
    """Checked addresses of one host, looked up once for all who ask at the same time."""

    __slots__ = (
        "_found",
        "_fresh_until",
        "_host",
        "_policy",
        "_port",
        "_resolve",
        "_task",
        "_ttl_s",
    )

    def __init__(
        self, host: str, port: int, *, policy: AddressPolicy, resolve: Resolve, ttl_s: float
    ) -> None:
        self._host = host
        self._port = port
        self._policy = policy
        self._resolve = resolve
        self._ttl_s = ttl_s
        self._found: list[str] = []
        self._fresh_until = 0.0
        self._task: asyncio.Task[list[str]] | None = None

    async def addresses(self) -> list[str]:
        """Return the addresses to try, in order.

        Raises UpstreamAddressRefused if any of them is not allowed: a name that leads to public
        and private addresses at once is an attack or a mistake. Raises OSError if the look-up
        fails; failures are not remembered.
        """
        if self._found and asyncio.get_running_loop().time() < self._fresh_until:
            return self._found
        if self._task is None:
            self._task = asyncio.create_task(self._look_up())
            self._task.add_done_callback(self._looked_up)
        task = self._task
        # `wait` leaves the task alone when one of those who wait for it is cancelled.
        await asyncio.wait((task,))
        if task.cancelled():
            raise UpstreamUnreachable("the pool is closed", sent=False)
        return task.result()

    def close(self) -> None:
        """Cancel a look-up that is under way."""
        if self._task is not None:
            self._task.cancel()

    async def _look_up(self) -> list[str]:
        found = await self._resolve(self._host, self._port)
        if not found:
            raise UpstreamUnreachable(f"{self._host} has no address", sent=False)
        checked = [self._policy.check(self._host, address) for address in found]
        self._found = list(dict.fromkeys(checked))[:ADDRESSES_MAX]
        self._fresh_until = asyncio.get_running_loop().time() + self._ttl_s
        return self._found

    def _looked_up(self, task: asyncio.Task[list[str]]) -> None:
        self._task = None
        if not task.cancelled():
            # Everyone who asked may be gone; their error must not be reported as forgotten.
            task.exception()


def _network(entry: str) -> Network | None:
    try:
        return ip_network(entry)
    except ValueError:
        if "/" in entry or not entry.strip() or ":" in entry:
            raise ValueError(f"{entry!r} is neither a host name nor a network") from None
        return None


def _unwrapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, so that it cannot hide."""
    if isinstance(address, IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in _NAT64:
        inner = IPv4Address(int(address) & 0xFFFFFFFF)
    return inner or address


def _is_public(address: Address) -> bool:
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in _SITE_PREFIXES)
    )


def _is_never_by_name(address: Address) -> bool:
    return address.is_link_local or address.is_multicast or address.is_unspecified
