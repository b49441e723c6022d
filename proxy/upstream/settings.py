"""Limits and time-outs of one upstream's connection pool."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """Bounds of one pool; every one is positive.

    `connections_max`: open or opening connections to the upstream (512).
    `waiters_max`: requests that may wait for a connection (1024); the next one is refused.
    `wait_timeout_s`: longest wait for a connection (5).
    `idle_timeout_s`: unused connections are closed after this (15); keep it below the
    upstream's own keep-alive (4 for uvicorn, which closes after 5), or a request may meet the
    closing. A shorter `keep-alive: timeout=` of the upstream wins.
    `connect_timeout_s`: name look-up, TCP and TLS together (5).
    `read_idle_timeout_s`: longest silence inside a body (60); time in which we do not read
    because our own reader is slow does not count.
    `address_ttl_s`: how long a checked look-up is used for new connections (5).
    `header_bytes_max`: response head, trailers, and framing between two body bytes (64 KiB).
    `buffer_bytes_max`: body bytes held before reading pauses (64 KiB); one read of the event
    loop (256 KiB) may come on top.
    `private_allowed`: host names, addresses or networks in CIDR form that may be contacted
    although they are not public; everything else that is not public is refused.
    """

    connections_max: int = 512
    waiters_max: int = 1024
    wait_timeout_s: float = 5.0
    idle_timeout_s: float = 15.0
    connect_timeout_s: float = 5.0
    read_idle_timeout_s: float = 60.0
    address_ttl_s: float = 5.0
    header_bytes_max: int = 64 * 1024
    buffer_bytes_max: int = 64 * 1024
    private_allowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (int, float)) and value <= 0:
                raise ValueError(f"{field.name} must be positive, not {value}")
