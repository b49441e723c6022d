"""The connections to one upstream.

A slot is held from the moment a connection is going to be opened until it is closed, so that
opening ones count against `connections_max`. A freed slot or connection goes to the request that
waited longest; idle connections are reused last in, first out, so that a pool shrinks when load
falls.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from proxy.upstream.addresses import AddressBook, AddressPolicy, Resolve, system_resolve
from proxy.upstream.answer import UpstreamAnswer
from proxy.upstream.connection import Connection
from proxy.upstream.errors import (
    UpstreamConnectTimeout,
    UpstreamPoolExhausted,
    UpstreamReset,
    UpstreamUnreachable,
)
from proxy.upstream.origin import Headers, Origin
from proxy.upstream.settings import UpstreamSettings


def system_ssl_context() -> ssl.SSLContext:
    """Return the system's trust store with host names checked, offering HTTP/1.1 alone."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


class UpstreamPool:
    """Send requests to one upstream; made at start, closed at shutdown.

    Follows no redirect, keeps no cookie, reads no proxy variable, repeats no request.
    """

    def __init__(
        self,
        base_url: str,
        *,
        settings: UpstreamSettings,
        resolve: Resolve = system_resolve,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Raises ValueError for a base URL or a `private_allowed` entry that cannot be read."""
        self._origin = Origin.parse(base_url)
        self._settings = settings
        self._ssl = (ssl_context or system_ssl_context()) if self._origin.tls else None
        self._book = AddressBook(
            self._origin.host,
            self._origin.port,
            policy=AddressPolicy(settings.private_allowed),
            resolve=resolve,
            ttl_s=settings.address_ttl_s,
        )
        self._connections: set[Connection] = set()
        self._idle: dict[Connection, None] = {}
        self._waiters: dict[asyncio.Future[Connection], None] = {}
        self._is_closed = False

    @property
    def connections_open(self) -> int:
        """Connections open or opening."""
        return len(self._connections)

    @property
    def connections_idle(self) -> int:
        """Connections that could take a request now."""
        return len(self._idle)

    async def send(
        self,
        method: bytes,
        path: bytes,
        headers: Headers,
        body: bytes,
        *,
        head_timeout_s: float,
        on_sent: Callable[[], None] | None = None,
    ) -> UpstreamAnswer:
        """Send one request and return its answer once the head has arrived.

        `path` follows the base URL's path. `host`, `content-length` and connection headers are
        the pool's; giving one raises ValueError. `on_sent` runs immediately before the first byte
        leaves; if it raises, nothing is sent. Raises UpstreamError, whose `sent` says whether a
        byte may have left. Never sends twice.
        """
        head = self._origin.request_head(method, path, headers, len(body))
        connection = await self._acquire()
        reader = await connection.exchange(
            head,
            body,
            bodiless=method == b"HEAD",
            head_timeout_s=head_timeout_s,
            on_sent=on_sent,
        )
        return UpstreamAnswer(connection, reader)

    async def aclose(self) -> None:
        """Close every connection; running exchanges end with UpstreamReset."""
        self._is_closed = True
        self._book.close()
        for waiter in list(self._waiters):
            _refuse(waiter, "the pool is closed")
        closing = list(self._connections)
        for connection in closing:
            connection.fail(UpstreamReset("the pool is closed", sent=True, answered=False))
        for connection in closing:
            await connection.lost

    async def _acquire(self) -> Connection:
        """Return a connection that a request may be written to."""
        while not self._is_closed:
            connection = self._take() or await self._wait()
            if connection.is_fresh:
                await self._connect(connection)
                return connection
            if connection.is_usable():
                return connection
            connection.close()
        raise UpstreamUnreachable("the pool is closed", sent=False)

    def _take(self) -> Connection | None:
        if self._idle:
            return self._idle.popitem()[0]
        if len(self._connections) < self._settings.connections_max:
            return self._new()
        return None

    def _new(self) -> Connection:
        connection = Connection(self._settings, on_idle=self._offer, on_closed=self._forget)
        self._connections.add(connection)
        return connection

    async def _wait(self) -> Connection:
        if len(self._waiters) >= self._settings.waiters_max:
            raise UpstreamPoolExhausted("too many requests wait for a connection", sent=False)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Connection] = loop.create_future()
        self._waiters[waiter] = None
        timer = loop.call_later(
            self._settings.wait_timeout_s, _refuse, waiter, "no connection came free in time"
        )
        try:
            return await waiter
        except asyncio.CancelledError:
            self._hand_back(waiter)
            raise
        finally:
            timer.cancel()
            self._waiters.pop(waiter, None)

    def _hand_back(self, waiter: asyncio.Future[Connection]) -> None:
        """Pass on what was granted to a waiter that was cancelled in the same moment."""
        if waiter.cancelled() or waiter.exception() is not None:
            return
        connection = waiter.result()
        if connection.is_usable():
            self._offer(connection)
        else:
            connection.close()

    def _next_waiter(self) -> asyncio.Future[Connection] | None:
        while self._waiters:
            waiter = next(iter(self._waiters))
            del self._waiters[waiter]
            if not waiter.done():
                return waiter
        return None

    def _offer(self, connection: Connection) -> None:
        if self._is_closed:
            connection.close()
        elif waiter := self._next_waiter():
            waiter.set_result(connection)
        else:
            self._idle[connection] = None

    def _forget(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        self._connections.discard(connection)
        if not self._is_closed and (waiter := self._next_waiter()):
            waiter.set_result(self._new())

    async def _connect(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await self._dial(connection, await self._book.addresses())
        except TimeoutError as error:
            connection.close()
            raise UpstreamConnectTimeout("no connection in time", sent=False) from error
        except OSError as error:
            connection.close()
            raise UpstreamUnreachable(f"cannot connect: {error}", sent=False) from error
        except BaseException:
            connection.close()
            raise
        if connection.is_closed:
            raise UpstreamUnreachable("closed while it was opened", sent=False)

    async def _dial(self, connection: Connection, addresses: list[str]) -> None:
        """Try the addresses in order; one that is silent gets its share of the time, no more."""
        share_s = self._settings.connect_timeout_s / len(addresses)
        for address in addresses[:-1]:
            try:
                async with asyncio.timeout(share_s):
                    await self._open(connection, address)
                    return
            except OSError:
                # Includes the time-out. The last address decides what is reported.
                continue
        await self._open(connection, addresses[-1])

    async def _open(self, connection: Connection, address: str) -> None:
        await asyncio.get_running_loop().create_connection(
            lambda: connection,
            address,
            self._origin.port,
            ssl=self._ssl,
            server_hostname=self._origin.host if self._ssl else None,
        )


def _refuse(waiter: asyncio.Future[Connection], detail: str) -> None:
    if not waiter.done():
        waiter.set_exception(UpstreamPoolExhausted(detail, sent=False))
