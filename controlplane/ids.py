"""New identifiers: version 7 UUIDs (RFC 9562), which sort by the time they were made."""

from __future__ import annotations

import os
from collections.abc import Callable
from uuid import UUID

from controlplane.clock import Clock

RandomBytes = Callable[[int], bytes]


class IdSource:
    """Makes identifiers from a clock and a source of random bytes."""

    def __init__(self, clock: Clock, random_bytes: RandomBytes = os.urandom) -> None:
        self._clock = clock
        self._random_bytes = random_bytes

    def new_bytes(self) -> bytes:
        """Make the 16 bytes of a version 7 UUID."""
        millis = self._clock.wall_ns() // 1_000_000
        bits = (millis << 80) | int.from_bytes(self._random_bytes(10), "big")
        bits = (bits & ~(0xF << 76)) | (0x7 << 76)
        bits = (bits & ~(0x3 << 62)) | (0x2 << 62)
        return bits.to_bytes(16, "big")

    def new_uuid(self) -> UUID:
        """Make a version 7 UUID."""
        return UUID(bytes=self.new_bytes())
