"""Changes to plans, to who is on them and to what money an organization counts in, in the API."""

from __future__ import annotations

import strawberry

from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import mutation
from controlplane.api.given import given, required
from controlplane.api.nodes import NodeKind, expect
from controlplane.api.organization import Organization, organization_of
from controlplane.api.request import Info
from controlplane.api.scalars import BigInt, Money
from controlplane.context import Work
from controlplane.errors import InvalidInput
from controlplane.exchange.service import set_currency
from controlplane.plans import models, service
from controlplane.plans.graphql import Plan, plan_of
from controlplane.plans.service import PlanChanges
from controlplane.tenancy.models import Organization as OrganizationRow


@strawberry.input(description="What a plan shall add to a request in one currency.")
class PlanFeeInput:
    """What a plan shall add to a request in one currency."""

    currency: str = strawberry.field(description="The currency of organizations, ISO 4217.")
    amount: Money = strawberry.field(description="Added to each request that costs anything.")


@strawberry.input(description="A plan to create.")
class PlanCreateInput:
    """A plan to create."""

    name: str = strawberry.field(description="Up to 200 characters, unique for ever.")
    markup_ppm: int = strawberry.field(
        default=0,
        description="Added to the provider's price, in millionths of it: 0 to 10000000.",
    )
    fees: list[PlanFeeInput] = strawberry.field(
        default_factory=list,
        description="Added to each request, one for each currency; when there is any, only "
        "organizations with one of these currencies can be on the plan.",
    )
    requests_per_month: BigInt | None = strawberry.field(
        default=None, description="Most requests in a month of UTC; null: any number."
    )
    requests_per_day: BigInt | None = strawberry.field(
        default=None, description="Most requests in a day of UTC; null: any number."
    )
    requests_per_minute: BigInt | None = strawberry.field(
        default=None, description="Most requests in any 60 seconds; null: any number."
    )

    def changes(self) -> PlanChanges:
        """Read what was given.

        Raises `InvalidInput`.
        """
        return PlanChanges(
            name=self.name,
            markup_ppm=self.markup_ppm,
            fees=_fees(self.fees),
            requests_per_month=self.requests_per_month,
            requests_per_day=self.requests_per_day,
            requests_per_minute=self.requests_per_minute,
        )


@strawberry.input(description="What to change of a plan; what is left out stays.")
class PlanUpdateInput:
    """What to change of a plan."""

    plan_id: strawberry.ID = strawberry.field(description="The plan.")
    expected_version: int = strawberry.field(description="The version you have seen.")
    name: str | None = strawberry.field(
        default=strawberry.UNSET, description="Up to 200 characters; not null."
    )
    markup_ppm: int | None = strawberry.field(
        default=strawberry.UNSET, description="As for `planCreate`; not null."
    )
    fees: list[PlanFeeInput] | None = strawberry.field(
        default=strawberry.UNSET,
        description="All fees there shall be; as for `planCreate`; not null.",
    )
    requests_per_month: BigInt | None = strawberry.field(
        default=strawberry.UNSET, description="As for `planCreate`; null: any number."
    )
    requests_per_day: BigInt | None = strawberry.field(
        default=strawberry.UNSET, description="As for `planCreate`; null: any number."
    )
    requests_per_minute: BigInt | None = strawberry.field(
        default=strawberry.UNSET, description="As for `planCreate`; null: any number."
    )

    def changes(self) -> PlanChanges:
        """Read what was given.

        Raises `InvalidInput`.
        """
        found = PlanChanges()
        if given(self.name):
            found["name"] = required(self.name, "name")
        if given(self.markup_ppm):
            found["markup_ppm"] = required(self.markup_ppm, "markupPpm")
        if given(self.fees):
            found["fees"] = _fees(required(self.fees, "fees"))
        if given(self.requests_per_month):
            found["requests_per_month"] = self.requests_per_month
        if given(self.requests_per_day):
            found["requests_per_day"] = self.requests_per_day
        if given(self.requests_per_minute):
            found["requests_per_minute"] = self.requests_per_minute
        return found


@strawberry.input(description="A plan to archive.")
class PlanArchiveInput:
    """A plan to archive."""

    plan_id: strawberry.ID = strawberry.field(description="The plan.")
    expected_version: int = strawberry.field(description="The version you have seen.")
    reason: str | None = strawberry.field(default=None, description="Why, for the record.")


@strawberry.input(description="The plan an organization shall be on.")
class OrganizationSetPlanInput:
    """The plan an organization shall be on."""

    organization_id: strawberry.ID = strawberry.field(description="The organization.")
    plan_id: strawberry.ID | None = strawberry.field(description="The plan; null: none.")
    expected_version: int = strawberry.field(
        description="The version of the organization you have seen."
    )


@strawberry.input(description="The currency an organization shall have.")
class OrganizationSetCurrencyInput:
    """The currency an organization shall have."""

    organization_id: strawberry.ID = strawberry.field(description="The organization.")
    currency: str = strawberry.field(
        description="ISO 4217. The amounts of its limits stay the numbers they are."
    )
    expected_version: int = strawberry.field(
        description="The version of the organization you have seen."
    )


@strawberry.type(description="The plan, or why nothing was changed.")
class PlanPayload:
    """The plan, or why nothing was changed."""

    plan: Plan | None = strawberry.field(description="The plan; null when there are errors.")
    errors: list[UserError] = strawberry.field(description="What you can mend.")


@strawberry.type(description="The organization, or why nothing was changed.")
class OrganizationPayload:
    """The organization, or why nothing was changed."""

    organization: Organization | None = strawberry.field(
        description="The organization; null when there are errors."
    )
    errors: list[UserError] = strawberry.field(description="What you can mend.")


@strawberry.type
class PlanMutation:
    """Changes to plans and to who is on them."""

    @mutation("Create a plan. For the operator.")
    async def plan_create(self, info: Info, input: PlanCreateInput) -> PlanPayload:  # noqa: A002
        """Create a plan."""

        async def change(work: Work) -> models.Plan:
            return await service.create_plan(work, input.changes())

        return _plan_payload(*await attempt(info, change))

    @mutation("Change a plan, from the next request on, for all who are on it. For the operator.")
    async def plan_update(self, info: Info, input: PlanUpdateInput) -> PlanPayload:  # noqa: A002
        """Change a plan."""

        async def change(work: Work) -> models.Plan:
            name = expect(input.plan_id, NodeKind.PLAN, "plan")
            return await service.update_plan(
                work, name.id, input.changes(), expected_version=input.expected_version
            )

        return _plan_payload(*await attempt(info, change))

    @mutation("Archive a plan: nothing new gets it, who is on it stays. For the operator.")
    async def plan_archive(self, info: Info, input: PlanArchiveInput) -> PlanPayload:  # noqa: A002
        """Archive a plan."""

        async def change(work: Work) -> models.Plan:
            name = expect(input.plan_id, NodeKind.PLAN, "plan")
            return await service.archive_plan(
                work, name.id, expected_version=input.expected_version, reason=input.reason
            )

        return _plan_payload(*await attempt(info, change))

    @mutation("Put an organization on a plan; what it used stays used. For the operator.")
    async def organization_set_plan(
        self,
        info: Info,
        input: OrganizationSetPlanInput,  # noqa: A002
    ) -> OrganizationPayload:
        """Put an organization on a plan."""

        async def change(work: Work) -> OrganizationRow:
            place = expect(input.organization_id, NodeKind.ORGANIZATION, "organization")
            plan = input.plan_id
            return await service.set_plan(
                work,
                place.id,
                None if plan is None else expect(plan, NodeKind.PLAN, "plan").id,
                expected_version=input.expected_version,
            )

        return _organization_payload(*await attempt(info, change))

    @mutation("Change the currency of an organization that has booked nothing. For the operator.")
    async def organization_set_currency(
        self,
        info: Info,
        input: OrganizationSetCurrencyInput,  # noqa: A002
    ) -> OrganizationPayload:
        """Change the currency of an organization."""

        async def change(work: Work) -> OrganizationRow:
            place = expect(input.organization_id, NodeKind.ORGANIZATION, "organization")
            return await set_currency(
                work,
                place.id,
                currency=input.currency,
                expected_version=input.expected_version,
            )

        return _organization_payload(*await attempt(info, change))


def _fees(fees: list[PlanFeeInput]) -> dict[str, int]:
    found = {each.currency: int(each.amount) for each in fees}
    if len(found) != len(fees):
        raise InvalidInput("A currency has one fee.", field=("fees",))
    return found


def _plan_payload(row: models.Plan | None, errors: list[UserError]) -> PlanPayload:
    return PlanPayload(plan=None if row is None else plan_of(row), errors=errors)


def _organization_payload(
    row: OrganizationRow | None, errors: list[UserError]
) -> OrganizationPayload:
    shown = None if row is None else organization_of(row)
    return OrganizationPayload(organization=shown, errors=errors)
