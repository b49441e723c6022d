"""The one module of the Python code that reads a clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where every part of the product takes its time from."""

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch; for records and calendar periods."""

    def mono_ns(self) -> int:
        """Nanoseconds of a clock that never goes back; for windows and elapsed time."""


class SystemClock:
    """The machine's clocks."""

    def wall_ns(self) -> int:
        """Read the wall clock."""
        return time.time_ns()

    def mono_ns(self) -> int:
        """Read the monotonic clock."""
        return time.monotonic_ns()


class ManualClock:
    """A clock that moves only when told, so that tests wait for nothing."""

    def __init__(self, wall: datetime, mono_ns: int = 1_000_000_000_000) -> None:
        self._wall_ns = nanoseconds(wall)
        self._mono_ns = mono_ns

    def wall_ns(self) -> int:
        """Read the wall clock."""
        return self._wall_ns

    def mono_ns(self) -> int:
        """Read the monotonic clock."""
        return self._mono_ns

    def advance_ns(self, elapsed_ns: int) -> None:
        """Let `elapsed_ns` nanoseconds pass on both clocks."""
        self._wall_ns += elapsed_ns
        self._mono_ns += elapsed_ns

    def jump_wall_ns(self, by_ns: int) -> None:
        """Move the wall clock alone, forward or back, as an operator or NTP would."""
        self._wall_ns += by_ns


def nanoseconds(instant: datetime) -> int:
    """Convert an aware `datetime` to nanoseconds since the epoch, exactly to the microsecond."""
    delta = instant - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000_000 + delta.microseconds * 1_000


def instant(wall_ns: int) -> datetime:
    """Convert nanoseconds since the epoch to an aware UTC `datetime`, cut to the microsecond."""
    seconds, rest_ns = divmod(wall_ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, tz=UTC).replace(microsecond=rest_ns // 1_000)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
