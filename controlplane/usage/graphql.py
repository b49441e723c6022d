"""Requests on record in the API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

import strawberry

from controlplane.api.connections import Connection, checked_first, connect
from controlplane.api.nodes import Node, NodeKind, expect_in, global_id
from controlplane.api.request import Info
from controlplane.api.scalars import BigInt, Money
from controlplane.authz import Action, Caller, Reach
from controlplane.clock import instant, nanoseconds
from controlplane.errors import InvalidInput
from controlplane.ledger.models import DecisionRow
from controlplane.usage.queries import (
    RequestFilter,
    cursor,
    page_of_requests,
    requests_by_ids,
)

NANOS_PER_MILLI = 1_000_000


@strawberry.type(description="One request, allowed, refused or failed.")
class RequestLog(Node):
    """One request, allowed, refused or failed."""

    request_id: str = strawberry.field(description="As in the header `x-request-id`.")
    at: datetime = strawberry.field(description="When it was decided.")
    key_id: strawberry.ID = strawberry.field(description="Global id of the key.")
    team_id: strawberry.ID | None = strawberry.field(description="Global id of the key's team.")
    member_id: strawberry.ID | None = strawberry.field(description="Global id of the key's owner.")
    requested_model: str | None = strawberry.field(description="The model asked for.")
    served_model: str | None = strawberry.field(description="The model that answered.")
    provider: str | None = strawberry.field(description="The provider that was called.")
    decision: str = strawberry.field(description="`allowed`, `refused` or `failed`.")
    code: str | None = strawberry.field(description="Why it was refused.")
    http_status: int = strawberry.field(description="Status of the answer.")
    held: Money = strawberry.field(description="What was held for it.")
    cost: Money = strawberry.field(description="What the provider takes for it.")
    charge: Money = strawberry.field(description="What it was booked with.")
    input_tokens: BigInt = strawberry.field(description="Tokens read.")
    output_tokens: BigInt = strawberry.field(description="Tokens written.")
    usage_source: str = strawberry.field(
        description="Where the figures are from: `provider`, `own_count`, `held` or `none`."
    )
    latency_ms: int = strawberry.field(description="From arrival to the end, in milliseconds.")
    streamed: bool = strawberry.field(description="Whether the answer was streamed.")
    upstream_status: int | None = strawberry.field(description="Status of the provider's answer.")
    policy_version: str = strawberry.field(description="SHA-256 of the policy that decided.")


@strawberry.input(description="A half-open range of time.")
class TimeRange:
    """A half-open range of time."""

    start: datetime = strawberry.field(name="from", description="Inclusive.")
    end: datetime | None = strawberry.field(
        name="to", default=None, description="Exclusive; left out: now."
    )


@strawberry.input(description="Which requests to show; lists have at most 100 values.")
class RequestFilterInput:
    """Which requests to show."""

    models: list[str] | None = strawberry.field(default=None, description="Of these models.")
    providers: list[str] | None = strawberry.field(default=None, description="To these providers.")
    decisions: list[str] | None = strawberry.field(
        default=None, description="`allowed`, `refused`, `failed`."
    )
    codes: list[str] | None = strawberry.field(default=None, description="With these codes.")
    http_status: list[int] | None = strawberry.field(
        default=None, description="With these statuses."
    )
    key_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Of these keys."
    )
    team_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Of these teams."
    )
    member_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Of these members."
    )
    min_cost: Money | None = strawberry.field(
        default=None, description="Booked with at least this much."
    )
    request_id: str | None = strawberry.field(default=None, description="This one.")


async def requests_of(
    info: Info,
    organization_id: UUID,
    *,
    first: int,
    after: str | None,
    between: TimeRange | None,
    wanted: RequestFilterInput | None,
) -> Connection[RequestLog]:
    """Read a page of the requests that the caller may see, newest first.

    Raises `InvalidInput`, `NotFound`.
    """
    checked_first(first)
    filtered = _filter(organization_id, wanted or RequestFilterInput())
    allowed = within_sight(info.context.caller, organization_id, filtered)
    if allowed is None:
        return connect([], has_next=False, has_previous=after is not None)
    async with info.context.backend.database.read() as session:
        page = await page_of_requests(
            session,
            organization_id,
            first=first,
            after=after,
            starts_ns=None if between is None else nanoseconds(between.start),
            ends_ns=None if between is None or not between.end else nanoseconds(between.end),
            filter=allowed,
        )
    items = [(cursor(row), request_of(row)) for row in page.items]
    return connect(items, has_next=page.has_next, has_previous=after is not None)


async def requests_among(
    info: Info,
    organization_id: UUID,
    ids: Sequence[UUID],
    wanted: RequestFilterInput | None,
) -> list[RequestLog]:
    """Read those of some requests that a filter lets through and the caller may see.

    Raises `InvalidInput`, `NotFound`.
    """
    filtered = _filter(organization_id, wanted or RequestFilterInput())
    allowed = within_sight(info.context.caller, organization_id, filtered)
    if allowed is None:
        return []
    async with info.context.backend.database.read() as session:
        rows = await requests_by_ids(session, organization_id, ids, allowed)
    return [request_of(row) for row in rows]


def within_sight(
    caller: Caller, organization_id: UUID, wanted: RequestFilter
) -> RequestFilter | None:
    """Narrow a filter to what the caller may see; None when nothing is left."""
    reach = caller.reach(Action.REQUESTS_READ, organization_id)
    if reach is Reach.ORGANIZATION:
        return wanted
    membership = caller.membership
    if reach is Reach.NONE or membership is None:
        return None
    if reach is Reach.TEAM:
        team_ids = _narrowed(wanted.team_ids, membership.team_id)
        return replace(wanted, team_ids=team_ids) if team_ids else None
    member_ids = _narrowed(wanted.member_ids, membership.member_id)
    return replace(wanted, member_ids=member_ids) if member_ids else None


def request_of(row: DecisionRow) -> RequestLog:
    """Show a decision record."""
    place = row.organization_id
    return RequestLog(
        id=global_id(NodeKind.REQUEST, place, row.id),
        request_id=str(row.id),
        at=instant(row.admitted_at_ns),
        key_id=global_id(NodeKind.KEY, place, row.key_id),
        team_id=None if row.team_id is None else global_id(NodeKind.TEAM, place, row.team_id),
        member_id=_member_of(row),
        requested_model=row.requested_model,
        served_model=row.served_model,
        provider=row.provider,
        decision=row.decision,
        code=row.code,
        http_status=row.http_status,
        held=Money(row.held_nanos),
        cost=Money(row.cost_nanos),
        charge=Money(row.charge_nanos),
        input_tokens=BigInt(row.input_tokens),
        output_tokens=BigInt(row.output_tokens),
        usage_source=row.usage_source,
        latency_ms=row.latency_ns // NANOS_PER_MILLI,
        streamed=row.streamed,
        upstream_status=row.upstream_status,
        policy_version=row.policy_version,
    )


def _member_of(row: DecisionRow) -> strawberry.ID | None:
    if row.member_id is None:
        return None
    return global_id(NodeKind.MEMBER, row.organization_id, row.member_id)


def _narrowed(asked: tuple[UUID, ...], own: UUID | None) -> tuple[UUID, ...]:
    if own is None or (asked and own not in asked):
        return ()
    return (own,)


def _filter(organization_id: UUID, wanted: RequestFilterInput) -> RequestFilter:
    def ids(texts: list[strawberry.ID] | None, kind: NodeKind, noun: str) -> tuple[UUID, ...]:
        found = (expect_in(text, kind, noun, organization_id) for text in texts or ())
        return tuple(each for each in found if each is not None)

    return RequestFilter(
        models=tuple(wanted.models or ()),
        providers=tuple(wanted.providers or ()),
        decisions=tuple(wanted.decisions or ()),
        codes=tuple(wanted.codes or ()),
        http_statuses=tuple(wanted.http_status or ()),
        key_ids=ids(wanted.key_ids, NodeKind.KEY, "key"),
        team_ids=ids(wanted.team_ids, NodeKind.TEAM, "team"),
        member_ids=ids(wanted.member_ids, NodeKind.MEMBER, "member"),
        charge_nanos_min=wanted.min_cost,
        request_id=_request_id(wanted.request_id),
    )


def _request_id(text: str | None) -> UUID | None:
    if text is None:
        return None
    try:
        return UUID(text)
    except ValueError as error:
        raise InvalidInput("This is no request id.", field=("filter", "requestId")) from error
