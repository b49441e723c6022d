"""What each caller may still ask for: a bucket of points that fills up again by the second."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from controlplane.clock import Clock, instant

# A caller whose bucket is forgotten starts with a full one; those seen last are kept.
CALLERS_MAX = 10_000
NANOS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Charge:
    """What an operation took from a bucket, or would have taken, and what is left in it.

    `wait_s` is how long until the operation can be paid; 0 when it was.
    """

    cost: int
    limit: int
    remaining: int
    restore_per_s: int
    resets_at: datetime
    resets_after_s: int
    wait_s: int

    @property
    def is_paid(self) -> bool:
        """Whether the operation may be executed."""
        return self.wait_s == 0

    def as_extension(self) -> dict[str, int | str]:
        """Show it as `extensions.cost`."""
        return {
            "requested": self.cost,
            "limit": self.limit,
            "remaining": self.remaining,
            "restoreRate": self.restore_per_s,
            "resetAt": self.resets_at.isoformat().replace("+00:00", "Z"),
        }

    def as_headers(self) -> tuple[tuple[str, str], ...]:
        """Show it as the fields of draft-ietf-httpapi-ratelimit-headers-10."""
        window_s = -(-self.limit // self.restore_per_s)
        policy = ("ratelimit-policy", f'"points";q={self.limit};w={window_s}')
        state = ("ratelimit", f'"points";r={self.remaining};t={self.resets_after_s}')
        if self.is_paid:
            return (policy, state)
        return (policy, state, ("retry-after", str(self.wait_s)))


@dataclass(slots=True)
class _Bucket:
    missing: int
    at_ns: int


class PointBuckets:
    """The buckets of all callers of a process, each of `points_max`, restored evenly.

    What is missing is kept in billionths of a point, so that restoring rounds nothing away.
    """

    def __init__(self, clock: Clock, *, points_max: int, restore_per_s: int) -> None:
        self._clock = clock
        self._points_max = points_max
        self._restore_per_s = restore_per_s
        self._buckets: OrderedDict[UUID | None, _Bucket] = OrderedDict()

    def take(self, caller: UUID | None, cost: int) -> Charge:
        """Take the points of an operation from its caller's bucket, all or none."""
        bucket = self._bucket(caller)
        wait_s = self._wait_s(bucket, cost)
        if not wait_s:
            bucket.missing += cost * NANOS_PER_S
        return self._charge(cost, bucket.missing, wait_s=wait_s)

    def look(self, caller: UUID | None, cost: int) -> Charge:
        """Tell whether a caller could pay; nothing is taken."""
        bucket = self._bucket(caller)
        return self._charge(cost, bucket.missing, wait_s=self._wait_s(bucket, cost))

    def _wait_s(self, bucket: _Bucket, cost: int) -> int:
        over = bucket.missing + (cost - self._points_max) * NANOS_PER_S
        return max(0, -(-over // (self._restore_per_s * NANOS_PER_S)))

    def _bucket(self, caller: UUID | None) -> _Bucket:
        now_ns = self._clock.mono_ns()
        bucket = self._buckets.setdefault(caller, _Bucket(0, now_ns))
        self._buckets.move_to_end(caller)
        if len(self._buckets) > CALLERS_MAX:
            self._buckets.popitem(last=False)
        restored = (now_ns - bucket.at_ns) * self._restore_per_s
        bucket.missing = max(0, bucket.missing - restored)
        bucket.at_ns = now_ns
        return bucket

    def _charge(self, cost: int, missing: int, *, wait_s: int) -> Charge:
        missing_points = -(-missing // NANOS_PER_S)
        resets_after_ns = -(-missing // self._restore_per_s)
        return Charge(
            cost=cost,
            limit=self._points_max,
            remaining=self._points_max - missing_points,
            restore_per_s=self._restore_per_s,
            resets_at=instant(self._clock.wall_ns() + resets_after_ns),
            resets_after_s=-(-resets_after_ns // NANOS_PER_S),
            wait_s=wait_s,
        )
