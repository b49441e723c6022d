"""What the last hour looked like, for one who begins to watch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Integer, cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from controlplane.ledger.models import DecisionRow, LedgerEntryRow
from controlplane.live.windows import HOUR_S, MINUTE_S, NANOS_PER_S

# A request that ran longer than this is not counted among those of the last minute at first.
RUNNING_MAX_S = 600

Rows = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Seed:
    """What one key did in one second; refused requests are among the requests."""

    team_id: UUID | None
    member_id: UUID | None
    key_id: UUID
    at_ns: int
    nanos: int = 0
    requests: int = 0
    refused: int = 0


async def seeds_of(session: AsyncSession, organization_id: UUID, now_ns: int) -> list[Seed]:
    """Read what was settled in the last hour and what ended in the last minute."""
    spent = await _spent(session, organization_id, now_ns - (HOUR_S + 60) * NANOS_PER_S)
    ended = await _ended(session, organization_id, now_ns)
    return [*_seeds_of_spending(spent), *_seeds_of_requests(ended)]


def _second(at_ns: InstrumentedAttribute[int]) -> ColumnElement[int]:
    # Both databases cut the quotient of whole numbers.
    return at_ns // NANOS_PER_S


async def _spent(session: AsyncSession, organization_id: UUID, since_ns: int) -> Rows:
    second = _second(LedgerEntryRow.settled_at_ns).label("second")
    paths = (LedgerEntryRow.team_id, LedgerEntryRow.member_id, LedgerEntryRow.key_id)
    query = (
        select(
            *paths, second, cast(func.sum(LedgerEntryRow.charge_nanos), BigInteger).label("nanos")
        )
        .where(
            LedgerEntryRow.organization_id == organization_id,
            LedgerEntryRow.settled_at_ns >= since_ns,
        )
        .group_by(*paths, second)
    )
    return (await session.execute(query)).all()


async def _ended(session: AsyncSession, organization_id: UUID, now_ns: int) -> Rows:
    second = _second(DecisionRow.finished_at_ns).label("second")
    paths = (DecisionRow.team_id, DecisionRow.member_id, DecisionRow.key_id)
    is_refused = cast(DecisionRow.decision == "refused", Integer)
    query = (
        select(
            *paths,
            second,
            func.count().label("requests"),
            cast(func.sum(is_refused), BigInteger).label("refused"),
        )
        .where(
            DecisionRow.organization_id == organization_id,
            DecisionRow.admitted_at_ns >= now_ns - RUNNING_MAX_S * NANOS_PER_S,
            DecisionRow.finished_at_ns >= now_ns - (MINUTE_S + 1) * NANOS_PER_S,
        )
        .group_by(*paths, second)
    )
    return (await session.execute(query)).all()


def _seeds_of_spending(rows: Rows) -> Iterator[Seed]:
    for row in rows:
        at_ns = row.second * NANOS_PER_S
        yield Seed(row.team_id, row.member_id, row.key_id, at_ns, nanos=row.nanos)


def _seeds_of_requests(rows: Rows) -> Iterator[Seed]:
    for row in rows:
        at_ns = row.second * NANOS_PER_S
        counts = {"requests": row.requests, "refused": row.refused}
        yield Seed(row.team_id, row.member_id, row.key_id, at_ns, **counts)
