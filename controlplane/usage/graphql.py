"""Requests on record in the API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final
from uuid import UUID

import strawberry

from controlplane.api.connections import Connection, checked_first, connect
from controlplane.api.fields import enumeration, resolved
from controlplane.api.nodes import Node, NodeKind, expect_in, global_id
from controlplane.api.request import Info
from controlplane.api.scalars import BigInt, Money
from controlplane.authz import Action, may
from controlplane.clock import instant
from controlplane.errors import InvalidInput
from controlplane.keys.graphql import Tag, TagInput, VirtualKey, key_of
from controlplane.keys.models import VirtualKey as KeyRow
from controlplane.keys.queries import target_of
from controlplane.ledger.models import DecisionRow
from controlplane.tenancy.graphql import Member, Team, load_member, load_team
from controlplane.usage.filters import RequestFilter, within_sight
from controlplane.usage.queries import cursor, page_of_requests, requests_by_ids
from controlplane.usage.spend.graphql import TimeRange

NANOS_PER_MILLI: Final = 1_000_000
# How the header `x-request-id` begins; the id in hexadecimal digits follows.
REQUEST_ID_PREFIX: Final = "req_"


class Outcome(StrEnum):
    """What became of a request."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    FAILED = "failed"


enumeration(
    Outcome,
    "RequestOutcome",
    "What became of a request.",
    {
        Outcome.ALLOWED: "It was let through and answered.",
        Outcome.REFUSED: "It was not let through, and costs nothing.",
        Outcome.FAILED: "It was let through and then failed; it may cost something.",
    },
)


@strawberry.type(description="A step of a limit that a request went through.")
class RequestStep:
    """A step of a limit that a request went through."""

    limit_id: strawberry.ID = strawberry.field(description="Global id of the limit.")
    percent: int = strawberry.field(description="The share of the limit from which on it applies.")
    action: str = strawberry.field(description="`downgrade`, `confirm` or `queue`.")
    model: str | None = strawberry.field(description="The model it was downgraded to.")


@strawberry.type(description="One request, allowed, refused or failed.")
class RequestLog(Node):
    """One request, allowed, refused or failed."""

    request_id: str = strawberry.field(description="As in the header `x-request-id`.")
    at: datetime = strawberry.field(description="When it was decided.")
    key_id: strawberry.ID = strawberry.field(description="Global id of the key.")
    team_id: strawberry.ID | None = strawberry.field(description="Global id of the key's team.")
    member_id: strawberry.ID | None = strawberry.field(description="Global id of the key's owner.")
    cost_center_id: strawberry.ID | None = strawberry.field(
        description="Global id of the cost center it is booked on."
    )
    feature: str | None = strawberry.field(description="What it was for, as its caller said.")
    agent: str | None = strawberry.field(description="The agent that asked, as its caller said.")
    end_user: str | None = strawberry.field(description="For whom it was, as its caller said.")
    session: str | None = strawberry.field(description="The session or task it is part of.")
    environment: str | None = strawberry.field(description="Where it came from, as `production`.")
    request_class: str | None = strawberry.field(
        description="`interactive`, `batch` or `background`, if said."
    )
    tags: list[Tag] = strawberry.field(description="Labels it came with, by name.")
    route: str = strawberry.field(description="The path that was called.")
    requested_model: str | None = strawberry.field(description="The model asked for.")
    served_model: str | None = strawberry.field(description="The model that answered.")
    provider: str | None = strawberry.field(description="The provider that was called.")
    decision: str = strawberry.field(description="`allowed`, `refused` or `failed`.")
    code: str | None = strawberry.field(description="Why it was refused or failed.")
    error_code: str | None = strawberry.field(
        description="Why it failed, or was refused by other than a limit."
    )
    limit_id: strawberry.ID | None = strawberry.field(
        description="Global id of the budget, breaker or rate limit that refused it."
    )
    limit_scope: str | None = strawberry.field(
        description="Whose limit refused it: `organization`, `team`, `member` or `key`."
    )
    over_limit_action: str | None = strawberry.field(
        description="What limits did to it, in order and separated by commas: `wait`, `queue`, "
        "`downgrade`, `confirm`, `reject`, `cut`."
    )
    steps: list[RequestStep] = strawberry.field(description="Steps of limits it went through.")
    waited_ms: int = strawberry.field(
        description="How long it waited for room before it was sent, in milliseconds."
    )
    extensions: int = strawberry.field(
        description="How often more was held for it while its answer grew."
    )
    cut_limit_id: strawberry.ID | None = strawberry.field(
        description="Global id of the budget or breaker that cut its answer."
    )
    assembled: bool = strawberry.field(
        description="Whether an answer in one piece was put together from a stream."
    )
    tier: str | None = strawberry.field(description="Tier of the model that was to answer.")
    http_status: int = strawberry.field(description="Status of the answer.")
    currency: str = strawberry.field(description="Currency of its money, ISO 4217.")
    held: Money = strawberry.field(description="What was held for it at first.")
    bound: Money = strawberry.field(description="The most it could have been charged.")
    calibration: int = strawberry.field(
        description="What its bound was multiplied by, since its provider was seen to bill more."
    )
    cost: Money = strawberry.field(description="What the provider takes for it.")
    charge: Money = strawberry.field(description="What it was booked with.")
    input_tokens: BigInt = strawberry.field(description="Tokens read.")
    output_tokens: BigInt = strawberry.field(description="Tokens written.")
    cached_tokens: BigInt = strawberry.field(
        description="Tokens read from the provider's cache, part of those read."
    )
    reasoning_tokens: BigInt = strawberry.field(
        description="Tokens of reasoning, part of those written."
    )
    output_cap: BigInt | None = strawberry.field(description="Most tokens it was let to write.")
    usage_source: str = strawberry.field(
        description="Where the figures are from: `provider`, `own_count`, `held` or `none`."
    )
    latency_ms: int = strawberry.field(description="From arrival to the end, in milliseconds.")
    first_byte_ms: int | None = strawberry.field(
        description="From arrival to the first byte of the answer, in milliseconds."
    )
    streamed: bool = strawberry.field(description="Whether the answer was streamed.")
    client_disconnected: bool = strawberry.field(description="Whether the caller left early.")
    upstream_status: int | None = strawberry.field(description="Status of the provider's answer.")
    policy_version: str = strawberry.field(description="SHA-256 of the policy that decided.")
    row: strawberry.Private[DecisionRow]

    @resolved("The key; null when there is none any more, or you may not see it.")
    async def key(self, info: Info) -> VirtualKey | None:
        """Load the key."""
        row = await info.context.loaders.keys.load((self.row.organization_id, self.row.key_id))
        return None if row is None else see_key(info, row)

    @resolved("The team of the key then; null without one, or when you may not see it.")
    async def team(self, info: Info) -> Team | None:
        """Load the team."""
        return await load_team(info, self.row.organization_id, self.row.team_id)

    @resolved("The owner of the key then; null without one, or when you may not see it.")
    async def member(self, info: Info) -> Member | None:
        """Load the member."""
        return await load_member(info, self.row.organization_id, self.row.member_id)


@strawberry.input(
    description="Which requests count: all that is given must hold, each with one of its values, "
    "of which a list has at most 100."
)
class UsageFilter:
    """Which requests count."""

    team_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Of these teams."
    )
    member_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Of these members."
    )
    key_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Of these keys."
    )
    cost_center_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Booked on these cost centers."
    )
    models: list[str] | None = strawberry.field(
        default=None, description="Answered by these models; if refused, asking for these."
    )
    providers: list[str] | None = strawberry.field(default=None, description="To these providers.")
    features: list[str] | None = strawberry.field(default=None, description="For these features.")
    agents: list[str] | None = strawberry.field(default=None, description="By these agents.")
    end_users: list[str] | None = strawberry.field(default=None, description="For these users.")
    sessions: list[str] | None = strawberry.field(default=None, description="In these sessions.")
    environments: list[str] | None = strawberry.field(
        default=None, description="From these environments."
    )
    request_classes: list[str] | None = strawberry.field(
        default=None, description="Of these classes."
    )
    tags: list[TagInput] | None = strawberry.field(
        default=None,
        description="With each tag named here, and one of the values given for its name.",
    )
    outcomes: list[Outcome] | None = strawberry.field(
        default=None, description="With these outcomes."
    )
    codes: list[str] | None = strawberry.field(default=None, description="With these codes.")

    def as_filter(self, organization_id: UUID) -> RequestFilter:
        """Read the filter.

        Raises `NotFound` for the id of an object that is not of this organization.
        """

        def ids(texts: list[strawberry.ID] | None, kind: NodeKind, noun: str) -> tuple[UUID, ...]:
            found = (expect_in(text, kind, noun, organization_id) for text in texts or ())
            return tuple(each for each in found if each is not None)

        return RequestFilter(
            team_ids=ids(self.team_ids, NodeKind.TEAM, "team"),
            member_ids=ids(self.member_ids, NodeKind.MEMBER, "member"),
            key_ids=ids(self.key_ids, NodeKind.KEY, "key"),
            cost_center_ids=ids(self.cost_center_ids, NodeKind.COST_CENTER, "cost center"),
            models=tuple(self.models or ()),
            providers=tuple(self.providers or ()),
            features=tuple(self.features or ()),
            agents=tuple(self.agents or ()),
            end_users=tuple(self.end_users or ()),
            sessions=tuple(self.sessions or ()),
            environments=tuple(self.environments or ()),
            request_classes=tuple(self.request_classes or ()),
            tags=tuple((each.name, each.value) for each in self.tags or ()),
            outcomes=tuple(each.value for each in self.outcomes or ()),
            codes=tuple(self.codes or ()),
        )


@strawberry.input(
    description="Which requests to show: all that is given must hold, each with one of its "
    "values, of which a list has at most 100."
)
class RequestFilterInput(UsageFilter):
    """Which requests to show."""

    decisions: list[str] | None = strawberry.field(
        default=None, description="As `outcomes`, in text: `allowed`, `refused`, `failed`."
    )
    http_status: list[int] | None = strawberry.field(
        default=None, description="Answered with these statuses."
    )
    upstream_status: list[int] | None = strawberry.field(
        default=None, description="Answered by the provider with these statuses."
    )
    streamed: bool | None = strawberry.field(
        default=None, description="Only those whose answer was streamed, or was not."
    )
    min_cost: Money | None = strawberry.field(
        default=None, description="Booked with at least this much."
    )
    max_cost: Money | None = strawberry.field(
        default=None, description="Booked with at most this much."
    )
    min_latency_ms: int | None = strawberry.field(
        default=None, description="Which took at least this many milliseconds."
    )
    request_id: str | None = strawberry.field(
        default=None, description="This one, as in the header `x-request-id`, or as a UUID."
    )

    def as_filter(self, organization_id: UUID) -> RequestFilter:
        """Read the filter.

        Raises `InvalidInput`, and `NotFound` as for usage.
        """
        least_ms = self.min_latency_ms
        return replace(
            UsageFilter.as_filter(self, organization_id),
            decisions=tuple(self.decisions or ()),
            http_statuses=tuple(self.http_status or ()),
            upstream_statuses=tuple(self.upstream_status or ()),
            streamed=self.streamed,
            charge_nanos_min=self.min_cost,
            charge_nanos_max=self.max_cost,
            latency_ns_min=None if least_ms is None else least_ms * NANOS_PER_MILLI,
            request_id=_request_id(self.request_id, ("filter", "requestId")),
        )


# Arguments of what is asked about requests.
DuringOrEver = Annotated[
    TimeRange | None, strawberry.argument(description="Decided in this range; left out: ever.")
]
OfUsage = Annotated[UsageFilter | None, strawberry.argument(description="Which requests count.")]
OfRequests = Annotated[
    RequestFilterInput | None, strawberry.argument(description="Which requests to show.")
]
RequestName = Annotated[
    str, strawberry.argument(description="As in the header `x-request-id`, or as a UUID.")
]


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
    if between is not None:
        between.checked(info.context.backend.installation.clock.wall_ns())
    filtered = (wanted or RequestFilterInput()).as_filter(organization_id)
    allowed = within_sight(info.context.caller, organization_id, filtered)
    if allowed is None:
        return connect([], has_next=False, has_previous=after is not None)
    async with info.context.backend.database.read() as session:
        page = await page_of_requests(
            session,
            organization_id,
            first=first,
            after=after,
            starts_ns=None if between is None else between.starts_ns(),
            ends_ns=None if between is None else between.ends_ns(),
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
    filtered = (wanted or RequestFilterInput()).as_filter(organization_id)
    allowed = within_sight(info.context.caller, organization_id, filtered)
    if allowed is None:
        return []
    async with info.context.backend.database.read() as session:
        rows = await requests_by_ids(session, organization_id, ids, allowed)
    return [request_of(row) for row in rows]


async def request_by_id(info: Info, organization_id: UUID, text: str) -> RequestLog | None:
    """Find a request that the caller may see; None when there is none.

    Raises `InvalidInput` when the text is no request id.
    """
    wanted = RequestFilter(request_id=_request_id(text, ("requestId",)))
    allowed = within_sight(info.context.caller, organization_id, wanted)
    if allowed is None:
        return None
    async with info.context.backend.database.read() as session:
        page = await page_of_requests(session, organization_id, first=1, filter=allowed)
    return request_of(page.items[0]) if page.items else None


def request_of(row: DecisionRow) -> RequestLog:
    """Show a decision record."""
    place = row.organization_id
    cap = row.output_cap
    return RequestLog(
        id=global_id(NodeKind.REQUEST, place, row.id),
        request_id=f"{REQUEST_ID_PREFIX}{row.id.hex}",
        at=instant(row.admitted_at_ns),
        key_id=global_id(NodeKind.KEY, place, row.key_id),
        team_id=_optional_id(NodeKind.TEAM, place, row.team_id),
        member_id=_optional_id(NodeKind.MEMBER, place, row.member_id),
        cost_center_id=_optional_id(NodeKind.COST_CENTER, place, row.cost_center_id),
        feature=row.feature,
        agent=row.agent,
        end_user=row.end_user,
        session=row.session,
        environment=row.environment,
        request_class=row.request_class,
        tags=[Tag(name=name, value=value) for name, value in sorted(row.tags.items())],
        route=row.route,
        requested_model=row.requested_model,
        served_model=row.served_model,
        provider=row.provider,
        decision=row.decision,
        code=row.code,
        error_code=row.error_code,
        limit_id=_limit_id(row),
        limit_scope=row.limit_scope,
        over_limit_action=row.over_limit_action,
        steps=[_step(place, step) for step in row.steps],
        waited_ms=row.waited_ns // NANOS_PER_MILLI,
        extensions=row.extensions,
        cut_limit_id=_optional_id(NodeKind.BUDGET, place, row.cut_limit_id),
        assembled=row.assembled,
        tier=row.tier,
        http_status=row.http_status,
        currency=row.currency,
        held=Money(row.held_nanos),
        bound=Money(row.bound_nanos),
        calibration=row.calibration,
        cost=Money(row.cost_nanos),
        charge=Money(row.charge_nanos),
        input_tokens=BigInt(row.input_tokens),
        output_tokens=BigInt(row.output_tokens),
        cached_tokens=BigInt(row.cached_tokens),
        reasoning_tokens=BigInt(row.reasoning_tokens),
        output_cap=None if cap is None else BigInt(cap),
        usage_source=row.usage_source,
        latency_ms=row.latency_ns // NANOS_PER_MILLI,
        first_byte_ms=_first_byte_ms(row),
        streamed=row.streamed,
        client_disconnected=row.client_disconnected,
        upstream_status=row.upstream_status,
        policy_version=row.policy_version,
        row=row,
    )


def _step(place: UUID, step: Mapping[str, Any]) -> RequestStep:
    return RequestStep(
        limit_id=global_id(NodeKind.BUDGET, place, UUID(step["limitId"])),
        percent=step["percent"],
        action=step["action"],
        model=step.get("model"),
    )


def see_key(info: Info, row: KeyRow) -> VirtualKey | None:
    """Show a key, if the caller may see it."""
    if not may(info.context.caller, Action.STRUCTURE_READ, target_of(row)):
        return None
    return key_of(row, info.context.backend.installation.now())


def _optional_id(kind: NodeKind, place: UUID, row_id: UUID | None) -> strawberry.ID | None:
    return None if row_id is None else global_id(kind, place, row_id)


def _first_byte_ms(row: DecisionRow) -> int | None:
    if row.first_byte_at_ns is None:
        return None
    # Both are read from the wall clock, which may have been set back in between.
    return max(0, row.first_byte_at_ns - row.admitted_at_ns) // NANOS_PER_MILLI


def _limit_id(row: DecisionRow) -> strawberry.ID | None:
    """Name the limit as the API does: a budget by its row, the others by what they are of."""
    if row.limit_id is None or row.code is None:
        return None
    place = row.organization_id
    if row.code == "rate_limit_exceeded":
        return global_id(NodeKind.RATE_LIMIT, place, row.key_id)
    if row.code != "spend_circuit_open":
        return global_id(NodeKind.BUDGET, place, row.limit_id)
    breakers = {
        "organization": (NodeKind.ORGANIZATION_BREAKER, place),
        "team": (NodeKind.TEAM_BREAKER, row.team_id),
        "member": (NodeKind.MEMBER_BREAKER, row.member_id),
    }
    kind, scope_id = breakers.get(row.limit_scope or "", (NodeKind.BUDGET, None))
    return _optional_id(kind, place, scope_id)


def _request_id(text: str | None, field: Iterable[str]) -> UUID | None:
    if text is None:
        return None
    try:
        return UUID(text.removeprefix(REQUEST_ID_PREFIX))
    except ValueError as error:
        raise InvalidInput("This is no request id.", field=tuple(field)) from error
