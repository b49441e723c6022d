"""Breakers in the API."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import strawberry

from controlplane.api.counters import CounterSource, state_of
from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import enumeration, mutation, resolved
from controlplane.api.nodes import BREAKER_NODES, Node, global_id, parse_global_id
from controlplane.api.request import Info
from controlplane.api.scalars import Money
from controlplane.api.scopes import ScopeInput, SpendScope, scope_of, sees_scope
from controlplane.breakers.models import BreakerOffset
from controlplane.breakers.service import reset_breaker
from controlplane.breakers.thresholds import Threshold, effective_thresholds
from controlplane.clock import instant
from controlplane.context import Work
from controlplane.limits import service
from controlplane.limits.models import LimitKind, ScopeKind
from controlplane.limits.nesting import BREAKER_WINDOWS_S, breaker_id
from controlplane.limits.queries import LimitPair
from controlplane.limits.settled import counted_breaker
from controlplane.limits.state import LimitState
from controlplane.limits.subjects import Scope
from controlplane.scope import not_found


class BreakerState(StrEnum):
    """Whether a breaker stops requests."""

    CLOSED = "closed"
    OPEN = "open"


class ThresholdSource(StrEnum):
    """Whose threshold holds."""

    OWN = "own"
    TEAM = "team"
    ORGANIZATION = "organization"
    INSTALLATION = "installation"
    NONE = "none"


enumeration(
    BreakerState,
    "BreakerState",
    "Whether a breaker stops requests.",
    {
        BreakerState.CLOSED: "Requests pass.",
        BreakerState.OPEN: "Requests are refused until spending has slowed down.",
    },
)
enumeration(
    ThresholdSource,
    "ThresholdSource",
    "Whose threshold holds: the first of these that has one.",
    {
        ThresholdSource.OWN: "The scope's own.",
        ThresholdSource.TEAM: "That of the team a member is in.",
        ThresholdSource.ORGANIZATION: "That of the organization.",
        ThresholdSource.INSTALLATION: "The default of the installation.",
        ThresholdSource.NONE: "There is none: the window never opens.",
    },
)


@strawberry.type(description="One of the two windows that a breaker watches.")
class BreakerWindow:
    """One of the two windows that a breaker watches."""

    seconds: int = strawberry.field(description="Its length: 60 or 3600.")
    threshold: Money | None = strawberry.field(
        description="Spending at which it opens, inherited or not; null: it never does."
    )
    threshold_source: ThresholdSource = strawberry.field(description="Whose threshold it is.")
    inherited_from: SpendScope | None = strawberry.field(
        description="The scope that set it, unless it is the breaker's own or a default."
    )
    current: Money = strawberry.field(
        description="Spent in the window up to now, since its last reset if that was in it."
    )
    state: BreakerState = strawberry.field(description="Whether this window stops requests now.")
    source: CounterSource = strawberry.field(description="Where `current` is from.")
    as_of: datetime = strawberry.field(description="The moment these figures are of.")


@strawberry.type(description="Stops a scope that spends too fast, and lets go by itself.")
class Breaker(Node):
    """Stops a scope that spends too fast."""

    scope: SpendScope = strawberry.field(description="Whom it stops.")
    per_minute: Money | None = strawberry.field(
        description="Spending in any 60 seconds at which it opens; null: inherited."
    )
    per_hour: Money | None = strawberry.field(
        description="Spending in any 3600 seconds at which it opens; null: inherited."
    )
    version: int = strawberry.field(description="Counts changes; see `expectedVersion`.")
    organization_uuid: strawberry.Private[UUID]
    about: strawberry.Private[Scope]

    @resolved("Whether it refuses now, as far as is known here.")
    async def state(self, info: Info) -> BreakerState:
        """Tell whether either window is at its threshold."""
        windows = await _windows(info, self.organization_uuid, self.about)
        is_open = any(each.state is BreakerState.OPEN for each in windows)
        return BreakerState.OPEN if is_open else BreakerState.CLOSED

    @resolved("What holds for it and what is spent, the shorter window first.")
    async def windows(self, info: Info) -> list[BreakerWindow]:
        """Load both windows."""
        return await _windows(info, self.organization_uuid, self.about)

    @resolved("Whether it refuses now; null while nothing enforces it here.")
    def is_open(self, info: Info) -> bool | None:
        """Tell whether either window is at its threshold."""
        states = self._states(info)
        return any(state.is_open for state in states) if states else None

    @resolved("When it closes if nothing more is spent; null when closed.")
    def closes_at(self, info: Info) -> datetime | None:
        """Tell when both windows are below their thresholds."""
        ends = [each.frees_at_ns for each in self._states(info) if each.is_open]
        known = [end_ns for end_ns in ends if end_ns is not None]
        return instant(max(known)) if known else None

    def _states(self, info: Info) -> list[LimitState]:
        names = (breaker_id(self.about.kind, self.about.id, each) for each in BREAKER_WINDOWS_S)
        found = (
            info.context.limit_state(self.organization_uuid, self.about, name) for name in names
        )
        return [state for state in found if state is not None]


def breaker_of(organization_id: UUID, pair: LimitPair) -> Breaker:
    """Show the thresholds a scope has set for itself."""
    minute_nanos, hour_nanos = pair.caps
    return Breaker(
        id=global_id(BREAKER_NODES[pair.scope.kind], organization_id, pair.scope.id),
        scope=scope_of(organization_id, pair.scope),
        per_minute=None if minute_nanos is None else Money(minute_nanos),
        per_hour=None if hour_nanos is None else Money(hour_nanos),
        version=pair.version,
        organization_uuid=organization_id,
        about=pair.scope,
    )


async def load_breaker(info: Info, organization_id: UUID, scope: Scope) -> Breaker:
    """Load the breaker of a scope."""
    pair = await info.context.loaders.pairs.load((organization_id, (LimitKind.BREAKER, scope)))
    return breaker_of(organization_id, pair)


async def visible_breakers(
    info: Info, organization_id: UUID, *, team_id: UUID | None, member_id: UUID | None
) -> list[Breaker]:
    """List the breakers that stop a team's or member's requests and that the caller may see."""
    scopes = _path(organization_id, team_id=team_id, member_id=member_id)
    seen = await asyncio.gather(*(sees_scope(info, organization_id, each) for each in scopes))
    shown = [scope for scope, is_seen in zip(scopes, seen, strict=True) if is_seen]
    return await asyncio.gather(*(load_breaker(info, organization_id, each) for each in shown))


def _path(organization_id: UUID, *, team_id: UUID | None, member_id: UUID | None) -> list[Scope]:
    path = [] if member_id is None else [Scope(ScopeKind.MEMBER, member_id)]
    if team_id is not None:
        path.append(Scope(ScopeKind.TEAM, team_id))
    return [*path, Scope(ScopeKind.ORGANIZATION, organization_id)]


async def _windows(info: Info, organization_id: UUID, scope: Scope) -> list[BreakerWindow]:
    fallbacks = await _fallbacks(info, organization_id, scope)
    names = [(LimitKind.BREAKER, each) for each in (scope, *fallbacks)]
    pairs = info.context.loaders.pairs
    path = await asyncio.gather(*(pairs.load((organization_id, each)) for each in names))
    settings = info.context.backend.installation.settings
    defaults = {60: settings.breaker_minute_nanos, 3600: settings.breaker_hour_nanos}
    return await asyncio.gather(
        *(
            _window(info, organization_id, scope, each)
            for each in effective_thresholds(path, defaults)
        )
    )


async def _fallbacks(info: Info, organization_id: UUID, scope: Scope) -> list[Scope]:
    if scope.kind is ScopeKind.ORGANIZATION:
        return []
    if scope.kind is not ScopeKind.MEMBER:
        return _path(organization_id, team_id=None, member_id=None)
    member = await info.context.loaders.members.load((organization_id, scope.id))
    team_id = None if member is None else member.team_id
    return _path(organization_id, team_id=team_id, member_id=None)


async def _window(
    info: Info, organization_id: UUID, scope: Scope, threshold: Threshold
) -> BreakerWindow:
    limit = counted_breaker(scope, threshold.seconds, threshold.cap_nanos)
    state, source = await state_of(info, organization_id, limit)
    if source is CounterSource.LEDGER:
        offset = await info.context.loaders.offsets.load((organization_id, scope))
        state = _less(state, offset, threshold)
    setter = threshold.set_by
    is_inherited = setter is not None and setter != scope
    return BreakerWindow(
        seconds=threshold.seconds,
        threshold=None if threshold.cap_nanos is None else Money(threshold.cap_nanos),
        threshold_source=_source(scope, threshold),
        inherited_from=scope_of(organization_id, setter) if setter and is_inherited else None,
        current=Money(state.settled),
        state=BreakerState.OPEN if state.is_open else BreakerState.CLOSED,
        source=source,
        as_of=instant(state.as_of_ns),
    )


def _less(state: LimitState, offset: BreakerOffset | None, threshold: Threshold) -> LimitState:
    """Leave out what is not held against a breaker since it was reset."""
    if offset is None:
        return state
    amount_nanos, until_ns = offset.of_window(threshold.seconds)
    if state.as_of_ns >= until_ns:
        return state
    settled = max(0, state.settled - amount_nanos)
    cap_nanos = threshold.cap_nanos
    return replace(state, settled=settled, is_open=cap_nanos is not None and settled >= cap_nanos)


def _source(scope: Scope, threshold: Threshold) -> ThresholdSource:
    if threshold.set_by == scope:
        return ThresholdSource.OWN
    if threshold.set_by is not None:
        return ThresholdSource(threshold.set_by.kind.value)
    return ThresholdSource.NONE if threshold.cap_nanos is None else ThresholdSource.INSTALLATION


@strawberry.input(description="Thresholds of a breaker; both are set, null inherits.")
class BreakerSetInput:
    """Thresholds of a breaker."""

    scope: ScopeInput = strawberry.field(
        description="Whom it stops: an organization, a team or a member."
    )
    per_minute: Money | None = strawberry.field(
        default=None, description="Spending in any 60 seconds at which it opens."
    )
    per_hour: Money | None = strawberry.field(
        default=None, description="Spending in any 3600 seconds at which it opens."
    )
    expected_version: int | None = strawberry.field(
        default=None, description="The version you have seen; null where none was ever set."
    )


@strawberry.type(description="The breaker, or why nothing was changed.")
class BreakerPayload:
    """The breaker, or why nothing was changed."""

    breaker: Breaker | None = strawberry.field(description="The breaker; null when errors.")
    errors: list[UserError] = strawberry.field(description="What you can mend.")


@strawberry.input(description="A breaker to close by hand.")
class BreakerResetInput:
    """A breaker to close by hand."""

    breaker_id: strawberry.ID = strawberry.field(description="The breaker.")
    expected_version: int = strawberry.field(description="The version you have seen, 0 included.")
    reason: str = strawberry.field(description="Why, for the record, up to 200 characters.")


Located = tuple[UUID, LimitPair]


@strawberry.type
class BreakerMutation:
    """Changes to breakers."""

    @mutation("Set a scope's own breaker thresholds.")
    async def breaker_set(self, info: Info, input: BreakerSetInput) -> BreakerPayload:  # noqa: A002
        """Set a scope's own breaker thresholds."""

        async def change(work: Work) -> Located:
            organization_id, scope = input.scope.located()
            pair = await service.set_breaker(
                work,
                organization_id,
                scope,
                minute_nanos=input.per_minute,
                hour_nanos=input.per_hour,
                expected_version=input.expected_version,
            )
            return organization_id, pair

        done, errors = await attempt(info, change)
        return BreakerPayload(breaker=None if done is None else breaker_of(*done), errors=errors)

    @mutation("Close a breaker by hand; it goes on counting what comes after.")
    async def breaker_reset(self, info: Info, input: BreakerResetInput) -> BreakerPayload:  # noqa: A002
        """Close a breaker by hand."""

        async def change(work: Work) -> Located:
            organization_id, scope = _breaker_named(input.breaker_id)
            pair = await reset_breaker(
                work,
                organization_id,
                scope,
                _live(info, organization_id, scope),
                expected_version=input.expected_version,
                reason=input.reason,
            )
            return organization_id, pair

        done, errors = await attempt(info, change)
        return BreakerPayload(breaker=None if done is None else breaker_of(*done), errors=errors)


def _breaker_named(text: str) -> tuple[UUID, Scope]:
    found = parse_global_id(text)
    for kind, node in BREAKER_NODES.items():
        if found is not None and found.kind is node:
            return found.organization_id, Scope(kind, found.id)
    raise not_found("breaker")


def _live(info: Info, organization_id: UUID, scope: Scope) -> dict[int, LimitState]:
    """Read both windows without keeping them: the answer shows them as the change left them."""
    states = info.context.backend.limit_states(organization_id, scope)
    names = {each: breaker_id(scope.kind, scope.id, each) for each in BREAKER_WINDOWS_S}
    return {seconds: states[name] for seconds, name in names.items() if name in states}
