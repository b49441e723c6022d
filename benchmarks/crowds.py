"""Installations of a hundred keys and of a million, written straight into an engine.

Half of the million keys and of their 100,000 limits are one organization's, the others those of a
hundred; every key is under twelve limits: four of its member, its team, its organization.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from uuid import UUID

from benchmarks.admission import limit_form
from core_rs import Engine

# As the control plane sends them: small, so that what is read does not count as what is kept.
KEYS_AT_ONCE = 5_000
LIMITS_A_SCOPE = 4
_SHAPES = (
    ("budget", "spend", "hard"),
    ("budget", "spend", "hard"),
    ("breaker", "spend", "metered"),
    ("rate", "requests", "hard"),
)


@dataclass(frozen=True, slots=True)
class Size:
    """One organization: its own limits, its teams' and its members'; keys take turns."""

    number: int
    teams: int
    members: int
    keys: int

    @property
    def id(self) -> str:
        """Its id."""
        return _uuid(self.number, 0)

    @property
    def limits(self) -> int:
        """Limits of all its scopes."""
        return LIMITS_A_SCOPE * (1 + self.teams + self.members)


SMALL = (Size(0, teams=1, members=1, keys=100),)
LARGE = (
    Size(1, teams=2_499, members=10_000, keys=500_000),
    *(Size(number, teams=24, members=100, keys=5_000) for number in range(2, 102)),
)


def digest_of(size: Size, number: int) -> bytes:
    """Give the digest of a key whose secret nobody needs."""
    return hashlib.sha256(f"{size.number}/{number}".encode()).digest()


def load_limits(
    engine: Engine, sizes: Sequence[Size], wall_ns: int, mono_ns: int = 0
) -> tuple[float, float]:
    """Load the policy of each organization; gives the seconds of all and of the longest."""
    spent = []
    for size in sizes:
        snapshot = _snapshot(size)
        begun = time.perf_counter()
        engine.load_organization(snapshot, b"[]", wall_ns, mono_ns)
        spent.append(time.perf_counter() - begun)
    return sum(spent), max(spent)


def _snapshot(size: Size) -> bytes:
    scopes = [("organization", size.id)]
    scopes += [("team", _uuid(size.number, 1, number)) for number in range(size.teams)]
    scopes += [("member", _uuid(size.number, 2, number)) for number in range(size.members)]
    limits: list[dict[str, object]] = []
    for scope, scope_id in scopes:
        for kind, resource, mode in _SHAPES:
            number = (size.number << 32) + len(limits)
            limits.append(limit_form(number, kind, scope, scope_id, resource, mode))
    snapshot = {
        "organization_id": size.id,
        "state": "active",
        "currency": "USD",
        "version": "0" * 64,
        "limits": limits,
        "rules": [],
    }
    return json.dumps(snapshot).encode()


def load_keys(
    engine: Engine, sizes: Sequence[Size], digest: Callable[[Size, int], bytes] = digest_of
) -> float:
    """Load all keys; gives the seconds that the engine took."""
    spent_s = 0.0
    for size in sizes:
        keys = _keys(size, digest)
        while batch := list(itertools.islice(keys, KEYS_AT_ONCE)):
            written = json.dumps(batch).encode()
            begun = time.perf_counter()
            engine.load_keys(written)
            spent_s += time.perf_counter() - begun
    return spent_s


def _keys(size: Size, digest: Callable[[Size, int], bytes]) -> Iterator[dict[str, object]]:
    for number in range(size.keys):
        secret = {"digest": digest(size, number).hex(), "expires_at_ns": None}
        yield {
            "id": _uuid(size.number, 3, number),
            "organization_id": size.id,
            "team_id": _uuid(size.number, 1, number % size.teams),
            "member_id": _uuid(size.number, 2, number % size.members),
            "cost_center_id": None,
            "pools": [],
            "state": "active",
            "expires_at_ns": None,
            "secrets": [secret],
        }


def drawn_keys(random: Random, sizes: Sequence[Size], count: int) -> Iterator[tuple[Size, int]]:
    """Draw keys, each as likely as any other; gives organization and number."""
    for size in random.choices(sizes, [size.keys for size in sizes], k=count):
        yield size, random.randrange(size.keys)


def _uuid(organization: int, kind: int, number: int = 0) -> str:
    return str(UUID(int=((organization + 1) << 64) + (kind << 32) + number + 1))
