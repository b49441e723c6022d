"""Rolling sums for people to look at: the last minute and the last hour of one scope.

Limits count in the engine. These figures are rebuilt from the ledger whenever somebody begins to
watch, and hold the oldest partial bucket, as the engine's windows do: they never show too little,
and too much by at most one second's or one minute's worth.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

MINUTE_S = 60
HOUR_S = 3_600
NANOS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Figures:
    """What a scope spent and asked for lately; money in nano units."""

    minute_nanos: int = 0
    hour_nanos: int = 0
    requests_per_minute: int = 0
    refused_per_minute: int = 0


@dataclass(slots=True)
class _Bucket:
    starts_s: int
    nanos: int = 0
    requests: int = 0
    refused: int = 0


class _Ring:
    """Buckets of `width_s` seconds, the oldest first; those over `span_s` old are dropped."""

    def __init__(self, width_s: int, span_s: int) -> None:
        self._width_s = width_s
        self._span_s = span_s
        self._buckets: deque[_Bucket] = deque()

    def add(self, at_s: int, nanos: int, requests: int, refused: int) -> None:
        bucket = self._bucket(at_s - at_s % self._width_s)
        bucket.nanos += nanos
        bucket.requests += requests
        bucket.refused += refused

    def buckets(self, now_s: int) -> deque[_Bucket]:
        while self._buckets and self._buckets[0].starts_s <= now_s - self._span_s - self._width_s:
            self._buckets.popleft()
        return self._buckets

    def _bucket(self, starts_s: int) -> _Bucket:
        buckets = self._buckets
        # Requests end out of order by little: the bucket is the last or near it.
        place = len(buckets)
        while place and buckets[place - 1].starts_s > starts_s:
            place -= 1
        if place and buckets[place - 1].starts_s == starts_s:
            return buckets[place - 1]
        made = _Bucket(starts_s)
        buckets.insert(place, made)
        # Of most scopes that are counted nobody ever asks for the figures, which drops the old.
        while buckets[0].starts_s < buckets[-1].starts_s - 2 * self._span_s:
            buckets.popleft()
        return made


class Windows:
    """The last minute by the second and the last hour by the minute."""

    def __init__(self) -> None:
        self._minute = _Ring(1, MINUTE_S)
        self._hour = _Ring(60, HOUR_S)

    def add(self, at_ns: int, nanos: int, *, requests: int = 0, refused: int = 0) -> None:
        """Count something that happened at an instant."""
        at_s = at_ns // NANOS_PER_S
        self._minute.add(at_s, nanos, requests, refused)
        self._hour.add(at_s, nanos, 0, 0)

    def figures(self, now_ns: int) -> Figures:
        """Add up what is not too old."""
        now_s = now_ns // NANOS_PER_S
        minute = self._minute.buckets(now_s)
        return Figures(
            minute_nanos=sum(each.nanos for each in minute),
            hour_nanos=sum(each.nanos for each in self._hour.buckets(now_s)),
            requests_per_minute=sum(each.requests for each in minute),
            refused_per_minute=sum(each.refused for each in minute),
        )
