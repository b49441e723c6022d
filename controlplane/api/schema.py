"""The schema of the API, composed of what each domain brings."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Annotated

import strawberry
from graphql import GraphQLError
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from controlplane.access.graphql import AccessMutation, AccessToken, page_of_tokens
from controlplane.access.queries import own_tokens
from controlplane.api.connections import FIRST_DEFAULT, After, Connection, First
from controlplane.api.documents import PreparedDocument
from controlplane.api.faults import ConflictError, InputError, LimitError
from controlplane.api.fields import enumeration, resolved
from controlplane.api.lookup import find_node
from controlplane.api.nodes import Node, NodeKind, expect, parse_global_id
from controlplane.api.organization import Organization, Slug, organization_of
from controlplane.api.request import Info
from controlplane.api.scalars import SCALARS
from controlplane.authz import Action, Reach
from controlplane.breakers.graphql import BreakerMutation
from controlplane.calibrations.graphql import CalibrationMutation, CalibrationQuery
from controlplane.cost_centers.graphql import CostCenterMutation
from controlplane.errors import InvalidInput
from controlplane.exchange.graphql import (
    ExchangeMutation,
    ExchangeRate,
    OfCurrency,
    page_of_exchange_rates,
)
from controlplane.installation.graphql import InstallationMutation, InstallationQuery
from controlplane.keys.mutations.graphql import KeyMutation
from controlplane.limits.mutations.graphql import LimitMutation
from controlplane.live.graphql import LiveSubscription
from controlplane.plans.graphql import IncludeArchived, Plan, page_of_plans
from controlplane.plans.mutations.graphql import PlanMutation
from controlplane.policies.graphql import PolicyMutation
from controlplane.pools.graphql import PoolMutation
from controlplane.scope import not_found
from controlplane.tenancy.graphql import Member, User, load_member, user_of
from controlplane.tenancy.mutations.graphql import TenancyMutation
from controlplane.tenancy.queries import organization_by_slug
from controlplane.tenant_budgets.graphql import TenantBudgetMutation
from controlplane.wallets.mutations.graphql import WalletMutation

NODES_MAX = 100

SDL_PATH = Path(__file__).with_name("schema.graphql")

enumeration(
    Action,
    "Permission",
    "What a caller may do, at least on its own.",
    {
        Action.STRUCTURE_READ: "See teams, members and keys, with their limits.",
        Action.REQUESTS_READ: "See requests on record and what they cost.",
        Action.LIMITS_WRITE: "Set the limits of the organization, of teams, pools and labels.",
        Action.MEMBER_LIMITS_WRITE: "Set the budgets of members and keys.",
        Action.BREAKERS_WRITE: "Set the thresholds of breakers.",
        Action.KEYS_WRITE: "Create, change, rotate, disable and revoke keys.",
        Action.RATES_WRITE: "Set the rates of members and keys.",
        Action.MODELS_WRITE: "Set rules of what requests may be; a team's admin can only narrow.",
        Action.TEAMS_WRITE: "Create and change teams.",
        Action.MEMBERS_WRITE: "Make users members, and change their roles and teams.",
        Action.COST_CENTERS_WRITE: "Give cost centers to members and keys; who may do so in all "
        "of the organization also creates, changes and archives them.",
        Action.BILLING_READ: "See the wallet, the plan, the tenant budget and the exchange rate.",
        Action.BILLING_WRITE: "Open, top up and correct wallets, set plans, currencies and "
        "tenant budgets.",
        Action.POOLS_WRITE: "Create, rename and archive pools, and say which keys draw on them.",
    },
)

# Arguments of what can be asked.
Id = Annotated[
    strawberry.ID, strawberry.argument(description="As in the field `id` of any object.")
]
Ids = Annotated[
    list[strawberry.ID],
    strawberry.argument(description=f"As in the field `id` of any objects, at most {NODES_MAX}."),
]
AskedOrganization = Annotated[
    strawberry.ID,
    strawberry.argument(
        description="Its global id; for one that you may not see, nothing is listed."
    ),
]


@strawberry.type(description="Who asks, and what it may do.")
class Viewer:
    """Who asks, and what it may do."""

    user: User = strawberry.field(description="The person.")

    @resolved("The memberships this token acts for; none for an operator.")
    async def memberships(self, info: Info) -> list[Member]:
        """List the memberships this token acts for."""
        membership = info.context.caller.membership
        if membership is None:
            return []
        found = await load_member(info, membership.organization_id, membership.member_id)
        return [] if found is None else [found]

    @resolved("Tokens that stand for you as you are here, newest first.")
    async def access_tokens(
        self, info: Info, first: First = FIRST_DEFAULT, after: After = None
    ) -> Connection[AccessToken]:
        """List the caller's tokens."""
        return await page_of_tokens(info, own_tokens(info.context.caller), first, after)

    @resolved("What the caller may do in an organization, at least on its own.")
    def permissions(self, info: Info, organization_id: AskedOrganization) -> list[Action]:
        """List what the caller may do."""
        place = expect(organization_id, NodeKind.ORGANIZATION, "organization")
        caller = info.context.caller
        return [each for each in Action if caller.reach(each, place.id) > Reach.NONE]


@strawberry.type(description="What an operation costs, and what its caller may still ask for.")
class RateLimitStatus:
    """The state of the caller's bucket of points."""

    cost: int = strawberry.field(description="Points of this operation.")
    limit: int = strawberry.field(description="Points of a full bucket.")
    remaining: int = strawberry.field(description="Points left after this operation.")
    restore_rate: int = strawberry.field(description="Points that come back each second.")
    reset_at: datetime = strawberry.field(description="When the bucket is full if left alone.")


@strawberry.type(description="What can be asked.")
class Query(CalibrationQuery, InstallationQuery):
    """What can be asked."""

    @resolved("Who asks.")
    async def viewer(self, info: Info) -> Viewer:
        """Tell who asks."""
        user_id = info.context.caller.user_id
        row = None if user_id is None else await info.context.loaders.users.load(user_id)
        if row is None:
            raise not_found("user")
        return Viewer(user=user_of(row))

    @resolved("Points of this operation and what is left; also in `extensions.cost`.")
    def rate_limit(self, info: Info) -> RateLimitStatus:
        """Tell the state of the caller's bucket."""
        charge = info.context.charge
        return RateLimitStatus(
            cost=charge.cost,
            limit=charge.limit,
            remaining=charge.remaining,
            restore_rate=charge.restore_per_s,
            reset_at=charge.resets_at,
        )

    @resolved("Any object by its global id; null when you may not see it.")
    async def node(self, info: Info, id: Id) -> Node | None:  # noqa: A002
        """Find an object."""
        return await _find(info, id)

    @resolved("Objects by their global ids, at most 100, in order; null where you may not see one.")
    async def nodes(self, info: Info, ids: Ids) -> list[Node | None]:
        """Find objects."""
        if len(ids) > NODES_MAX:
            raise InvalidInput(f"At most {NODES_MAX} ids.", field=("ids",))
        return await asyncio.gather(*(_find(info, each) for each in ids))

    @resolved("An organization by its slug; null when you may not see it.")
    async def organization(self, info: Info, slug: Slug) -> Organization | None:
        """Find an organization."""
        async with info.context.backend.database.read() as session:
            row = await organization_by_slug(session, slug)
        if row is None:
            return None
        reach = info.context.caller.reach(Action.STRUCTURE_READ, row.id)
        return None if reach is Reach.NONE else organization_of(row)

    @resolved(
        "Plans that organizations can be put on, newest first; null for all but the operator."
    )
    async def plans(
        self,
        info: Info,
        first: First = FIRST_DEFAULT,
        after: After = None,
        include_archived: IncludeArchived = False,  # noqa: FBT002 - an argument of the API
    ) -> Connection[Plan] | None:
        """List plans."""
        return await page_of_plans(info, first, after, include_archived=include_archived)

    @resolved("Exchange rates, the last entered first; null for all but the operator.")
    async def exchange_rates(
        self,
        info: Info,
        first: First = FIRST_DEFAULT,
        after: After = None,
        currency: OfCurrency = None,
    ) -> Connection[ExchangeRate] | None:
        """List exchange rates."""
        return await page_of_exchange_rates(info, currency, first, after)


async def _find(info: Info, text: str) -> Node | None:
    name = parse_global_id(text)
    return None if name is None else await find_node(info, name)


@strawberry.type(description="What can be changed.")
class Mutation(
    TenancyMutation,
    CostCenterMutation,
    KeyMutation,
    PoolMutation,
    LimitMutation,
    InstallationMutation,
    BreakerMutation,
    PolicyMutation,
    AccessMutation,
    CalibrationMutation,
    ExchangeMutation,
    PlanMutation,
    WalletMutation,
    TenantBudgetMutation,
):
    """What can be changed."""


@strawberry.type(description="What can be followed, over graphql-transport-ws or an event stream.")
class Subscription(LiveSubscription):
    """What can be followed."""


class Schema(strawberry.Schema):
    """The schema; errors are told and logged by the handler."""

    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        """Leave logging to the handler, which knows what is expected."""


def make_schema() -> Schema:
    """Make the schema, once for a process."""
    return Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        types=[InputError, ConflictError, LimitError],
        extensions=[PreparedDocument],
        config=StrawberryConfig(scalar_map=SCALARS),
    )


def sdl() -> str:
    """Print the schema as it is committed in `schema.graphql`."""
    return make_schema().as_str() + "\n"
