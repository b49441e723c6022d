"""Counters that the engine asks for, and how use read from the ledger is added up for them."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any, Literal
from uuid import UUID

import msgspec

# A rolling window is a ring of this many buckets, and one more that is being filled.
ROLLING_BUCKETS = 60
# Labels of a template that are told one by one, the largest sums first; the engine keeps no more.
LABELS_MAX = 100_000
# What SQL compares with is signed.
INSTANT_NS_MAX = 2**63 - 1
_SECOND_NS = 1_000_000_000

Kind = Literal[
    "installation",
    "organization",
    "team",
    "member",
    "member_in_team",
    "key",
    "pool",
    "feature",
    "agent",
    "end_user",
    "session",
    "provider",
]
# Pairs of wall-clock instant and amount.
Entries = list[list[int]]


class Scope(msgspec.Struct, frozen=True):
    """Whose use is counted: one scope by its id, or `each` label of a kind."""

    kind: Kind
    id: UUID | None = None
    each: bool = False


class Where(msgspec.Struct, frozen=True):
    """Which requests are counted; None and an empty list mean all."""

    models: tuple[str, ...] | None = None
    tiers: tuple[str, ...] | None = None
    providers: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None

    def columns(self) -> dict[str, frozenset[str]]:
        """Give what is allowed by the name of the ledger's column."""
        lists = (
            ("model", self.models),
            ("tier", self.tiers),
            ("provider", self.providers),
            ("feature", self.features),
        )
        return {name: frozenset(values) for name, values in lists if values}


class Window(msgspec.Struct, frozen=True):
    """Over which time is counted; `seconds` of a rolling window."""

    kind: Literal["rolling", "calendar", "days", "lifetime"]
    seconds: int | None = None


class CounterSpec(msgspec.Struct, frozen=True):
    """One counter the engine asks for; instants are wall-clock nanoseconds."""

    scope: Scope
    resource: Literal["spend", "requests", "tokens"]
    window: Window
    starts_at_ns: int
    ends_at_ns: int
    where: Where | None = None

    @property
    def bucket_ns(self) -> int | None:
        """How long a bucket of its rolling window is; None for periods."""
        if self.window.kind != "rolling" or self.window.seconds is None:
            return None
        return self.window.seconds * _SECOND_NS // ROLLING_BUCKETS


class Use(msgspec.Struct, frozen=True, gc=False):
    """Sums of entries that one query does not tell apart; `at_ns` is the newest of them.

    `names` holds the columns that some counter of the query chooses by.
    """

    owners: tuple[tuple[str, Any], ...]
    names: Mapping[str, str | None]
    at_ns: int
    amounts: Mapping[str, int]


class Tally:
    """Adds up what one counter counts."""

    def __init__(self, counter: CounterSpec) -> None:
        self._counter = counter
        self._bucket_ns = counter.bucket_ns
        self._allowed = {} if counter.where is None else counter.where.columns()
        self._ends_at_ns = min(counter.ends_at_ns, INSTANT_NS_MAX)
        # By bucket; a period has but one.
        self._buckets: dict[int, list[int]] = {}

    @property
    def total(self) -> int:
        """What was counted over all."""
        return sum(amount for _, amount in self._buckets.values())

    def add(self, use: Use) -> None:
        """Add a use of the counter's scope, if the counter counts it."""
        if any(use.names[name] not in values for name, values in self._allowed.items()):
            return
        starts_at_ns, bucket_ns = self._counter.starts_at_ns, self._bucket_ns
        if bucket_ns is None:
            if starts_at_ns <= use.at_ns < self._ends_at_ns:
                self._put(0, starts_at_ns, use.amounts[self._counter.resource])
            return
        index = (use.at_ns - starts_at_ns) // bucket_ns
        self._put(index, use.at_ns, use.amounts[self._counter.resource])

    def merge(self, other: Tally) -> None:
        """Add what another tally of the same counter has."""
        for index, (at_ns, amount) in other._buckets.items():
            self._put(index, at_ns, amount)

    def entries(self) -> Entries:
        """Give what the counter starts from."""
        if self._bucket_ns is None and not self._buckets:
            return [[self._counter.starts_at_ns, 0]]
        return [bucket for _, bucket in sorted(self._buckets.items())]

    def _put(self, index: int, at_ns: int, amount: int) -> None:
        bucket = self._buckets.setdefault(index, [at_ns, 0])
        bucket[0] = max(bucket[0], at_ns)
        bucket[1] += amount


class LabelTallies:
    """Adds up a template's counter for each label; labels come one after the other, sorted.

    Holds at most `LABELS_MAX` of them at once.
    """

    def __init__(self, counter: CounterSpec, labels_max: int = LABELS_MAX) -> None:
        self._counter = counter
        self._labels_max = labels_max
        self._open: tuple[str, Tally] | None = None
        self._rest = Tally(counter)
        # The smallest sum first; of equal ones that which came last.
        self._largest: list[tuple[int, int, str, Tally]] = []
        self._count = 0

    def add(self, label: str, use: Use) -> None:
        """Add a use of a label."""
        if self._open is None or self._open[0] != label:
            self._close()
            self._open = (label, Tally(self._counter))
        self._open[1].add(use)

    def seed(self) -> dict[str, Any]:
        """Give what each label's counter starts from, and what all others add up to."""
        self._close()
        ordered = sorted(self._largest, key=lambda each: (-each[0], -each[1]))
        labels = [{"label": each[2], "entries": each[3].entries()} for each in ordered]
        return {"labels": labels, "rest": self._rest.entries()}

    def _close(self) -> None:
        if self._open is None:
            return
        (label, tally), self._open = self._open, None
        if not tally.total:
            return
        self._count += 1
        heapq.heappush(self._largest, (tally.total, -self._count, label, tally))
        if len(self._largest) > self._labels_max:
            self._rest.merge(heapq.heappop(self._largest)[3])
