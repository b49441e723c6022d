"""Changes to cost centers in the API."""

from __future__ import annotations

import strawberry

from controlplane.api.faults import UserError, attempt
from controlplane.api.fields import mutation
from controlplane.api.given import given, required
from controlplane.api.nodes import NodeKind, expect
from controlplane.api.request import Info
from controlplane.context import Work
from controlplane.cost_centers import service
from controlplane.cost_centers.service import CostCenterChanges
from controlplane.tenancy import models
from controlplane.tenancy.graphql import CostCenter, cost_center_of


@strawberry.input(description="A cost center to create.")
class CostCenterCreateInput:
    """A cost center to create."""

    organization_id: strawberry.ID = strawberry.field(description="In which organization.")
    code: str = strawberry.field(
        description="What the books call it, up to 60 characters, unique for ever."
    )
    name: str = strawberry.field(description="Name for people, up to 200 characters.")
    idempotency_key: str | None = strawberry.field(
        default=None, description="A retry with the same value returns the first cost center."
    )


@strawberry.input(description="What to change of a cost center; what is left out stays.")
class CostCenterUpdateInput:
    """What to change of a cost center."""

    cost_center_id: strawberry.ID = strawberry.field(description="The cost center.")
    expected_version: int = strawberry.field(description="The version you have seen.")
    code: str | None = strawberry.field(
        default=strawberry.UNSET, description="What the books call it; not null."
    )
    name: str | None = strawberry.field(
        default=strawberry.UNSET, description="Name for people; not null."
    )

    def changes(self) -> CostCenterChanges:
        """Read what was given.

        Raises `InvalidInput`.
        """
        found = CostCenterChanges()
        if given(self.code):
            found["code"] = required(self.code, "code")
        if given(self.name):
            found["name"] = required(self.name, "name")
        return found


@strawberry.input(description="A cost center to archive.")
class CostCenterArchiveInput:
    """A cost center to archive."""

    cost_center_id: strawberry.ID = strawberry.field(description="The cost center.")
    expected_version: int = strawberry.field(description="The version you have seen.")
    reason: str | None = strawberry.field(default=None, description="Why, for the record.")


@strawberry.type(description="The cost center, or why nothing was changed.")
class CostCenterPayload:
    """The cost center, or why nothing was changed."""

    cost_center: CostCenter | None = strawberry.field(
        description="The cost center; null when there are errors."
    )
    errors: list[UserError] = strawberry.field(description="What you can mend.")


@strawberry.type
class CostCenterMutation:
    """Changes to cost centers."""

    @mutation("Create a cost center. For admins.")
    async def cost_center_create(
        self,
        info: Info,
        input: CostCenterCreateInput,  # noqa: A002
    ) -> CostCenterPayload:
        """Create a cost center."""

        async def change(work: Work) -> models.CostCenter:
            place = expect(input.organization_id, NodeKind.ORGANIZATION, "organization")
            return await service.create_cost_center(
                work,
                place.id,
                code=input.code,
                name=input.name,
                idempotency_key=input.idempotency_key,
            )

        return _payload(*await attempt(info, change))

    @mutation("Give a cost center another code or name. For admins.")
    async def cost_center_update(
        self,
        info: Info,
        input: CostCenterUpdateInput,  # noqa: A002
    ) -> CostCenterPayload:
        """Change a cost center."""

        async def change(work: Work) -> models.CostCenter:
            name = expect(input.cost_center_id, NodeKind.COST_CENTER, "cost center")
            return await service.update_cost_center(
                work,
                name.organization_id,
                name.id,
                input.changes(),
                expected_version=input.expected_version,
            )

        return _payload(*await attempt(info, change))

    @mutation("Archive a cost center: nothing new gets it, what has it keeps it. For admins.")
    async def cost_center_archive(
        self,
        info: Info,
        input: CostCenterArchiveInput,  # noqa: A002
    ) -> CostCenterPayload:
        """Archive a cost center."""

        async def change(work: Work) -> models.CostCenter:
            name = expect(input.cost_center_id, NodeKind.COST_CENTER, "cost center")
            return await service.archive_cost_center(
                work,
                name.organization_id,
                name.id,
                expected_version=input.expected_version,
                reason=input.reason,
            )

        return _payload(*await attempt(info, change))


def _payload(row: models.CostCenter | None, errors: list[UserError]) -> CostCenterPayload:
    return CostCenterPayload(
        cost_center=None if row is None else cost_center_of(row), errors=errors
    )
