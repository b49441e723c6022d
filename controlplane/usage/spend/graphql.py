"""Ranges of time and what was spent in them, in the API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final
from uuid import UUID

import strawberry

from controlplane.api.request import Info
from controlplane.api.scalars import BigInt, Money
from controlplane.clock import nanoseconds
from controlplane.errors import InvalidInput
from controlplane.inputs import checked_time_zone
from controlplane.limits.models import ScopeKind
from controlplane.usage.spend.queries import Spender
from controlplane.usage.totals import Totals

# Records begin after the first; nanoseconds of the second fit in 64 bits.
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)


@strawberry.input(description="A half-open range of time.")
class TimeRange:
    """A half-open range of time."""

    start: datetime = strawberry.field(name="from", description="Inclusive; not before 1970.")
    end: datetime | None = strawberry.field(
        name="to", default=None, description="Exclusive, not after 2199; left out: now."
    )
    timezone: str | None = strawberry.field(
        default=None,
        description="IANA time zone in which buckets begin; left out: the organization's.",
    )

    def checked(self, now_ns: int) -> tuple[int, int]:
        """Read both ends in nanoseconds; without an end it ends now.

        Raises `InvalidInput` when it ends before it starts, or an end cannot be used.
        """
        starts_ns = self.starts_ns()
        ends_ns = self.ends_ns()
        if ends_ns is None:
            ends_ns = now_ns
        if ends_ns < starts_ns:
            raise InvalidInput("The range ends before it starts.", field=("range",))
        return starts_ns, ends_ns

    def starts_ns(self) -> int:
        """Read the start in nanoseconds.

        Raises `InvalidInput`, also for a time zone that there is not.
        """
        if self.timezone is not None:
            checked_time_zone(self.timezone)
        return _checked_instant(self.start, "from")

    def ends_ns(self) -> int | None:
        """Read the end in nanoseconds.

        Raises `InvalidInput`.
        """
        return None if self.end is None else _checked_instant(self.end, "to")


# As an argument of what is asked about a range.
During = Annotated[TimeRange, strawberry.argument(description="In this range of time.")]


@strawberry.type(description="A half-open range of time.")
class TimeRangeValue:
    """A half-open range of time."""

    start: datetime = strawberry.field(name="from", description="Inclusive.")
    end: datetime = strawberry.field(name="to", description="Exclusive.")
    timezone: str = strawberry.field(description="IANA time zone in which buckets begin.")


@strawberry.type(description="What requests add up to.")
class SpendTotals:
    """What requests add up to."""

    cost: Money = strawberry.field(
        description="What was booked for them: the sum of `charge` of each."
    )
    requests: BigInt = strawberry.field(description="All of them, refused and failed ones too.")
    blocked: BigInt = strawberry.field(description="Those that were refused.")
    failed: BigInt = strawberry.field(description="Those that were let through and failed.")
    input_tokens: BigInt = strawberry.field(description="Tokens read.")
    output_tokens: BigInt = strawberry.field(description="Tokens written.")
    cached_tokens: BigInt = strawberry.field(description="Tokens read from the provider's cache.")


async def spend_of(
    info: Info, organization_id: UUID, kind: ScopeKind, scope_id: UUID, between: TimeRange
) -> SpendTotals:
    """Add up the requests of a scope that the caller may see.

    Raises `InvalidInput`.
    """
    between.checked(info.context.backend.installation.clock.wall_ns())
    spender = Spender(organization_id, kind, scope_id, between.starts_ns(), between.ends_ns())
    return spend_totals_of(await info.context.spending.load(spender))


def spend_totals_of(totals: Totals) -> SpendTotals:
    """Show totals."""
    return SpendTotals(
        cost=Money(totals.cost_nanos),
        requests=BigInt(totals.requests),
        blocked=BigInt(totals.blocked),
        failed=BigInt(totals.failed),
        input_tokens=BigInt(totals.input_tokens),
        output_tokens=BigInt(totals.output_tokens),
        cached_tokens=BigInt(totals.cached_tokens),
    )


def _checked_instant(instant: datetime, name: str) -> int:
    if not EARLIEST <= instant < LATEST:
        raise InvalidInput(
            f"Must be from {EARLIEST.year} to {LATEST.year - 1}.", field=("range", name)
        )
    return nanoseconds(instant)
