"""The tables of organizations, cost centers, teams, users and members."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from controlplane.authz import Role
from controlplane.columns import choice, same_organization
from controlplane.db import Row, Versioned
from controlplane.scope import TenantRow

NAME_LENGTH_MAX = 200
SLUG_LENGTH_MAX = 63
COST_CENTER_CODE_LENGTH_MAX = 60
# Archived ones count: their codes stay taken.
COST_CENTERS_MAX = 10_000
# RFC 5321 § 4.5.3.1.3: a path is at most 256 octets including its angle brackets.
EMAIL_LENGTH_MAX = 254
# The longest name in the IANA database has 32 characters.
TIME_ZONE_LENGTH_MAX = 64


class OrganizationState(StrEnum):
    """Whether an organization may send requests."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    ARCHIVED = "archived"


class Organization(Versioned, Row):
    """A tenant. `epoch` counts every change of its keys or policy.

    Without a plan it pays what its requests cost.
    """

    __tablename__ = "organizations"
    __table_args__ = (Index(None, "currency"), Index(None, "plan_id"))

    id: Mapped[UUID] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(SLUG_LENGTH_MAX), unique=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX))
    currency: Mapped[str] = mapped_column(String(3))
    time_zone: Mapped[str] = mapped_column(String(TIME_ZONE_LENGTH_MAX))
    state: Mapped[OrganizationState] = mapped_column(choice(OrganizationState))
    epoch: Mapped[int]
    plan_id: Mapped[UUID | None] = mapped_column(ForeignKey("plans.id"))
    created_at: Mapped[datetime]


class Allotment(StrEnum):
    """Whether what a team's budget is shared out to may add up to more than it."""

    FREE = "free"
    STRICT = "strict"


class User(Row):
    """A person, known by e-mail address; an operator is a member of no organization."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(EMAIL_LENGTH_MAX), unique=True)
    name: Mapped[str | None] = mapped_column(String(NAME_LENGTH_MAX))
    operator: Mapped[bool]
    created_at: Mapped[datetime]


class CostCenter(Versioned, TenantRow):
    """Where finance books spending.

    An archived one is given to nothing new; what has it keeps it, and goes on being booked on it
    until somebody gives it another.
    """

    __tablename__ = "cost_centers"
    __table_args__ = (
        UniqueConstraint("organization_id", "id"),
        UniqueConstraint("organization_id", "code"),
    )

    code: Mapped[str] = mapped_column(String(COST_CENTER_CODE_LENGTH_MAX))
    name: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX))
    created_at: Mapped[datetime]
    archived_at: Mapped[datetime | None]


class Team(Versioned, TenantRow):
    """A group of members and keys with limits of its own."""

    __tablename__ = "teams"
    __table_args__ = (
        UniqueConstraint("organization_id", "id"),
        UniqueConstraint("organization_id", "slug"),
        same_organization("cost_center_id", "cost_centers"),
    )

    slug: Mapped[str] = mapped_column(String(SLUG_LENGTH_MAX))
    name: Mapped[str] = mapped_column(String(NAME_LENGTH_MAX))
    cost_center_id: Mapped[UUID | None]
    allot: Mapped[Allotment] = mapped_column(
        choice(Allotment), default=Allotment.FREE, server_default=Allotment.FREE.value
    )
    created_at: Mapped[datetime]


class Member(Versioned, TenantRow):
    """A user's place in an organization, in at most one team."""

    __tablename__ = "members"
    __table_args__ = (
        UniqueConstraint("organization_id", "id"),
        UniqueConstraint("organization_id", "user_id"),
        Index(None, "organization_id", "team_id"),
        same_organization("team_id", "teams"),
        same_organization("cost_center_id", "cost_centers"),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    team_id: Mapped[UUID | None]
    cost_center_id: Mapped[UUID | None]
    role: Mapped[Role] = mapped_column(choice(Role))
    created_at: Mapped[datetime]

    user: Mapped[User] = relationship(lazy="raise", viewonly=True)
