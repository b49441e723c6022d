"""Live figures and the tail of requests in the API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.api.fields import subscription
from controlplane.api.nodes import NodeKind, expect
from controlplane.api.request import Info
from controlplane.api.scalars import BigInt, Money
from controlplane.api.scopes import ScopeInput, SpendScope, scope_of
from controlplane.authz import Action, Caller, Reach, Target, may
from controlplane.breakers.graphql import Breaker, breaker_of
from controlplane.clock import instant
from controlplane.errors import InvalidInput
from controlplane.ledger.records import DecisionRecord
from controlplane.limits.graphql import Budget, budget_of
from controlplane.limits.models import Limit, LimitKind, ScopeKind
from controlplane.limits.nesting import BREAKER_WINDOWS_S, breaker_id
from controlplane.limits.queries import LimitPair, budgets_of_scopes, pairs_of
from controlplane.limits.subjects import Scope, target_of_scope
from controlplane.live.feed import IsWanted, Watched
from controlplane.live.windows import Figures
from controlplane.scope import not_found
from controlplane.usage.graphql import OfRequests, RequestLog, requests_among

SCOPES_MAX = 20
# Two snapshots are at least this far apart; the proxies' figures are not fresher anyway.
INTERVAL_MS_MIN = 250
INTERVAL_MS_MAX = 10_000
INTERVAL_MS_DEFAULT = 500
WATCHED_KINDS = frozenset({ScopeKind.ORGANIZATION, ScopeKind.TEAM, ScopeKind.MEMBER, ScopeKind.KEY})
TAIL_INTERVAL_S = 0.5
# People read no more, and a batch is made in a step in which the proxy beside it waits.
REQUESTS_PER_BATCH_MAX = 20

# Arguments of feeds.
FollowedOrganization = Annotated[
    strawberry.ID,
    strawberry.argument(description="The organization whose feed it is, by its global id."),
]
FollowedScopes = Annotated[
    list[ScopeInput] | None,
    strawberry.argument(
        description=f"Whose spending to show: 1 to {SCOPES_MAX} of the organization, its teams, "
        "members and keys; null: all of it, or else your team, or yourself."
    ),
]
IntervalMs = Annotated[
    int,
    strawberry.argument(
        description="Least milliseconds between two snapshots; below "
        f"{INTERVAL_MS_MIN} counts as {INTERVAL_MS_MIN}, above {INTERVAL_MS_MAX} as "
        f"{INTERVAL_MS_MAX}."
    ),
]


@strawberry.type(description="What one scope spends at this moment.")
class LiveScope:
    """What one scope spends at this moment."""

    scope: SpendScope = strawberry.field(description="Whose spending it is.")
    last_minute: Money = strawberry.field(description="Booked in the last 60 seconds.")
    last_hour: Money = strawberry.field(description="Booked in the last 3600 seconds.")
    requests_per_minute: BigInt = strawberry.field(
        description="Requests that ended in the last 60 seconds, refused ones among them."
    )
    refused_per_minute: BigInt = strawberry.field(
        description="Requests refused in the last 60 seconds."
    )
    budgets: list[Budget] = strawberry.field(description="Its own budgets with their live state.")
    breaker: Breaker | None = strawberry.field(description="Its breaker; keys have none.")


@strawberry.type(
    description="What some scopes spend at this moment; the newest replaces all before."
)
class LiveSpend:
    """What some scopes spend at this moment."""

    at: datetime = strawberry.field(description="The moment the figures are of.")
    seq: BigInt = strawberry.field(description="Counts the snapshots of this feed from 1.")
    scopes: list[LiveScope] = strawberry.field(description="In the order they were asked for.")


@strawberry.type(description="Some of the requests that ended lately.")
class RequestLogBatch:
    """Some of the requests that ended lately."""

    seq: BigInt = strawberry.field(
        description="Counts the batches of this feed from 1; a gap means that you read too slowly."
    )
    requests: list[RequestLog] = strawberry.field(description="The oldest first, at most 20.")
    dropped: int = strawberry.field(
        description="How many were left out of this batch because there were too many."
    )


@strawberry.type
class LiveSubscription:
    """Feeds for people to look at: the newest counts, and what is missed is not repeated."""

    @subscription("Spending as it happens: snapshots, the first at once, then when it changes.")
    async def live_spend(
        self,
        info: Info,
        organization_id: FollowedOrganization,
        scopes: FollowedScopes = None,
        interval_ms: IntervalMs = INTERVAL_MS_DEFAULT,
    ) -> AsyncGenerator[LiveSpend, None]:
        """Follow what scopes spend; without scopes the widest the caller may see.

        `interval_ms` is brought into 250 to 10,000. Raises `NotFound`, `InvalidInput`.
        """
        place = expect(organization_id, NodeKind.ORGANIZATION, "organization").id
        pause_s = max(INTERVAL_MS_MIN, min(interval_ms, INTERVAL_MS_MAX)) / 1_000
        wanted = await _scopes(info, place, scopes)
        backend = info.context.backend
        seq, last = 0, None
        async with backend.live.watch(place) as watched:
            board = _Board(place, wanted, watched)
            while True:
                info.context.renew()
                await board.refresh(info)
                seen = board.look(info)
                if seen != last:
                    seq, last = seq + 1, seen
                    yield board.snapshot(info, seq)
                await asyncio.sleep(pause_s)

    @subscription("Requests as they end: a bounded tail for people, not a record for programs.")
    async def request_log(
        self,
        info: Info,
        organization_id: FollowedOrganization,
        filter: OfRequests = None,  # noqa: A002
    ) -> AsyncGenerator[RequestLogBatch, None]:
        """Follow requests; what comes too fast is left out and counted.

        Raises `NotFound`, `InvalidInput`.
        """
        place = expect(organization_id, NodeKind.ORGANIZATION, "organization").id
        if info.context.caller.reach(Action.REQUESTS_READ, place) is Reach.NONE:
            raise not_found("organization")
        # A filter that cannot be used is told at once, not when the first request ends.
        await requests_among(info, place, (), filter)
        seq, is_visible = 0, _visible_to(info.context.caller)
        async with info.context.backend.live.tail(place, is_visible) as tail:
            while True:
                await asyncio.sleep(TAIL_INTERVAL_S)
                ids, missed = tail.take()
                if not ids:
                    continue
                if filter is None:
                    # All of them are wanted: those that will not be shown need not be read.
                    missed += max(0, len(ids) - REQUESTS_PER_BATCH_MAX)
                    ids = ids[-REQUESTS_PER_BATCH_MAX:]
                info.context.renew()
                found = await requests_among(info, place, ids, filter)
                kept = found[-REQUESTS_PER_BATCH_MAX:]
                dropped = missed + len(found) - len(kept)
                if kept or dropped:
                    seq += 1
                    yield RequestLogBatch(seq=BigInt(seq), requests=kept, dropped=dropped)


@dataclass(slots=True)
class _Board:
    """What is shown of some scopes; their limits are read again only when they have changed."""

    organization_id: UUID
    scopes: Sequence[Scope]
    watched: Watched
    _changes: int = -1
    _budgets: Sequence[Limit] = ()
    _breakers: Sequence[LimitPair] = ()

    async def refresh(self, info: Info) -> None:
        if self._changes == self.watched.changes:
            return
        # Keys and members move: what was in sight at the beginning may be so no more.
        changes = self.watched.changes
        await _check_sight(info, self.organization_id, self.scopes)
        self._changes = changes
        async with info.context.backend.database.read() as session:
            self._budgets = await budgets_of_scopes(session, self.organization_id, self.scopes)
            self._breakers = await _breakers(session, self.organization_id, self.scopes)

    def look(self, info: Info) -> Hashable:
        """Tell what a snapshot would show, so that only changes are sent."""
        states = tuple(
            info.context.limit_state(self.organization_id, scope, name)
            for scope, name in self._limits()
        )
        shown = tuple(None if each is None else each.figures for each in states)
        return (self._changes, shown, tuple(self._figures(info, each) for each in self.scopes))

    def snapshot(self, info: Info, seq: int) -> LiveSpend:
        """Show all scopes."""
        now_ns = info.context.backend.installation.clock.wall_ns()
        scopes = [self._scope(info, each) for each in self.scopes]
        return LiveSpend(at=instant(now_ns), seq=BigInt(seq), scopes=scopes)

    def _limits(self) -> list[tuple[Scope, UUID]]:
        breakers = [
            (pair.scope, breaker_id(pair.scope.kind, pair.scope.id, seconds))
            for pair in self._breakers
            for seconds in BREAKER_WINDOWS_S
        ]
        return [(Scope(row.scope_kind, row.scope_id), row.id) for row in self._budgets] + breakers

    def _scope(self, info: Info, scope: Scope) -> LiveScope:
        figures = self._figures(info, scope)
        breakers = [each for each in self._breakers if each.scope == scope]
        return LiveScope(
            scope=scope_of(self.organization_id, scope),
            last_minute=Money(figures.minute_nanos),
            last_hour=Money(figures.hour_nanos),
            requests_per_minute=BigInt(figures.requests_per_minute),
            refused_per_minute=BigInt(figures.refused_per_minute),
            budgets=[
                budget_of(row)
                for row in self._budgets
                if (row.scope_kind, row.scope_id) == (scope.kind, scope.id)
            ],
            breaker=breaker_of(self.organization_id, breakers[0]) if breakers else None,
        )

    def _figures(self, info: Info, scope: Scope) -> Figures:
        return self.watched.figures(scope, info.context.backend.installation.clock.wall_ns())


def _visible_to(caller: Caller) -> IsWanted:
    def is_visible(record: DecisionRecord) -> bool:
        target = Target(record.organization_id, team_id=record.team_id, member_id=record.member_id)
        return may(caller, Action.REQUESTS_READ, target)

    return is_visible


async def _breakers(
    session: AsyncSession, organization_id: UUID, scopes: Sequence[Scope]
) -> list[LimitPair]:
    with_breaker = [each for each in scopes if each.kind is not ScopeKind.KEY]
    return await pairs_of(session, organization_id, with_breaker, LimitKind.BREAKER)


async def _scopes(
    info: Info, organization_id: UUID, wanted: Sequence[ScopeInput] | None
) -> list[Scope]:
    """Find the scopes asked for, all of this organization and in the caller's sight.

    Raises `NotFound`, `InvalidInput`.
    """
    caller = info.context.caller
    if wanted is None:
        return [_widest(caller, organization_id)]
    if not 1 <= len(wanted) <= SCOPES_MAX:
        raise InvalidInput(f"Name 1 to {SCOPES_MAX} scopes.", field=("scopes",))
    found: dict[Scope, None] = {}
    for each in wanted:
        place, scope = each.located()
        if place != organization_id:
            raise not_found(scope.kind.value)
        if scope.kind not in WATCHED_KINDS:
            raise InvalidInput(
                "Live spending is that of an organization, a team, a member or a key.",
                field=("scopes",),
            )
        found[scope] = None
    await _check_sight(info, organization_id, tuple(found))
    return list(found)


async def _check_sight(info: Info, organization_id: UUID, scopes: Sequence[Scope]) -> None:
    """Let pass only what the caller may see as things are now.

    Raises `NotFound`.
    """
    async with info.context.backend.database.read() as session:
        for scope in scopes:
            target = await target_of_scope(session, organization_id, scope)
            if not may(info.context.caller, Action.REQUESTS_READ, target):
                raise not_found(scope.kind.value)


def _widest(caller: Caller, organization_id: UUID) -> Scope:
    """Choose the organization, else the caller's team, else the caller."""
    if may(caller, Action.REQUESTS_READ, Target(organization_id)):
        return Scope(ScopeKind.ORGANIZATION, organization_id)
    membership = caller.membership
    reach = caller.reach(Action.REQUESTS_READ, organization_id)
    if membership is None or reach is Reach.NONE:
        raise not_found("organization")
    if reach is Reach.TEAM and membership.team_id is not None:
        return Scope(ScopeKind.TEAM, membership.team_id)
    return Scope(ScopeKind.MEMBER, membership.member_id)
