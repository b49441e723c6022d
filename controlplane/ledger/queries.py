"""Sums over ledger entries: what a counter starts from, and what must add up.

One query for each window and kind of scope, whatever the number of limits: rows are grouped by
whose they are in SQL, and added up for each counter here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import (
    ColumnElement,
    Select,
    SQLColumnExpression,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncSession

from controlplane.ids import derived_id
from controlplane.ledger.counters import (
    INSTANT_NS_MAX,
    CounterSpec,
    LabelTallies,
    Scope,
    Tally,
    Use,
)
from controlplane.ledger.models import LedgerEntryRow as Entry
from controlplane.tenancy.models import Organization

# So many scopes are named in a query, and no others read; of more, all are read.
SCOPES_NAMED_MAX = 1_000
# So many starts and ends of periods are told apart in one query: six comparisons a row.
BOUNDARIES_MAX = 64
ROWS_BUFFERED = 1_000

_PATH = ("organization", "team", "member", "member_in_team", "key")
_LABELS = frozenset({"feature", "agent", "end_user", "session"})
_FAMILIES = dict.fromkeys(_PATH, "path") | {"installation": "offer", "provider": "offer"}


class _Group(msgspec.Struct, frozen=True):
    """What one query answers, but for the boundaries of its periods."""

    family: str
    window: str
    bucket_ns: int | None
    by_admission: bool
    starts_at_ns: int | None
    has_where: bool


class _Reading(msgspec.Struct, frozen=True):
    """One query: the counters it is for, and what it must tell apart for them."""

    group: _Group
    counters: tuple[CounterSpec, ...]
    boundaries: tuple[int, ...]
    owners: tuple[str, ...]
    names: tuple[str, ...]


async def counter_sums(
    session: AsyncSession, organization_id: UUID, specs: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Give each counter specification its `entries`: pairs of wall-clock instant and amount.

    A period gets one entry at its start, over what was *admitted* in [start, end). A rolling
    window gets one for each bucket with use since its start, open at the end, because time has
    passed since the engine asked; the instant is the newest in the bucket, so that nothing leaves
    the window early. It counts spend and tokens when settled, requests when admitted.

    Spend is what was charged, but for counters of the installation and its providers: those count
    the cost, of all organizations. A specification of each label of a kind gets `labels`, at most
    `LABELS_MAX`, the largest sums first, and `rest`, the entries of all other labels together.
    """
    counters = msgspec.convert(specs, list[CounterSpec])
    by_group: dict[_Group, list[int]] = defaultdict(list)
    for index, counter in enumerate(counters):
        by_group[_group(counter)].append(index)
    seeds: list[dict[str, Any]] = [dict(spec) for spec in specs]
    for group, indexes in by_group.items():
        for part in _parts(group, counters, indexes):
            reading = _reading(group, [counters[index] for index in part])
            uses = _uses(session, organization_id, reading)
            for index, found in zip(part, await _tallied(reading, uses), strict=True):
                seeds[index] |= found
    return seeds


async def charge_totals(session: AsyncSession) -> dict[UUID, int]:
    """Sum the charges of each organization that has entries, in nano units of its currency."""
    query = select(Entry.organization_id, func.sum(Entry.charge_nanos))
    rows = await session.execute(query.group_by(Entry.organization_id))
    return {organization_id: int(total) for organization_id, total in rows}


async def charge_total(session: AsyncSession, organization_id: UUID) -> int:
    """Sum what an organization was charged so far, in nano units of its currency."""
    query = select(func.coalesce(func.sum(Entry.charge_nanos), 0))
    return int(await session.scalar(query.where(Entry.organization_id == organization_id)) or 0)


def _group(counter: CounterSpec) -> _Group:
    bucket_ns, kind = counter.bucket_ns, counter.scope.kind
    return _Group(
        family=_FAMILIES.get(kind, kind),
        window=counter.window.kind,
        bucket_ns=bucket_ns,
        by_admission=bucket_ns is None or counter.resource == "requests",
        starts_at_ns=None if bucket_ns is None else counter.starts_at_ns,
        has_where=counter.where is not None and bool(counter.where.columns()),
    )


def _parts(
    group: _Group, counters: Sequence[CounterSpec], indexes: Sequence[int]
) -> Iterator[list[int]]:
    """Divide counters so that a query tells no more than so many boundaries apart."""
    if group.bucket_ns is not None:
        yield list(indexes)
        return
    part: list[int] = []
    known: set[int] = set()
    for index in sorted(indexes, key=lambda each: counters[each].starts_at_ns):
        more = known | {counters[index].starts_at_ns, counters[index].ends_at_ns}
        if len(more) > BOUNDARIES_MAX:
            yield part
            part, more = [], {counters[index].starts_at_ns, counters[index].ends_at_ns}
        part.append(index)
        known = more
    yield part


def _reading(group: _Group, counters: Sequence[CounterSpec]) -> _Reading:
    kinds = {counter.scope.kind for counter in counters}
    wheres = [counter.where.columns() for counter in counters if counter.where is not None]
    ends = (min(each.ends_at_ns, INSTANT_NS_MAX) for each in counters)
    boundaries = sorted({*(each.starts_at_ns for each in counters), *ends})
    return _Reading(
        group=group,
        counters=tuple(counters),
        boundaries=() if group.bucket_ns is not None else tuple(boundaries),
        owners=_owner_columns(group.family, kinds),
        names=tuple(sorted({name for each in wheres for name in each})),
    )


def _owner_columns(family: str, kinds: set[Any]) -> tuple[str, ...]:
    """Name the columns that say whose an entry is, as far as it matters."""
    if family == "path":
        wanted = {
            "key_id": "key" in kinds,
            "team_id": bool(kinds & {"team", "member_in_team"}),
            "member_id": bool(kinds & {"member", "member_in_team"}),
        }
        return tuple(name for name, is_wanted in wanted.items() if is_wanted)
    if family == "offer":
        return ("provider",) if "provider" in kinds else ()
    return ("pools",) if family == "pool" else (family,)


async def _uses(
    session: AsyncSession, organization_id: UUID, reading: _Reading
) -> AsyncIterator[Use]:
    query = _query(organization_id, reading).execution_options(yield_per=ROWS_BUFFERED)
    owners_end = len(reading.owners)
    names_end = owners_end + len(reading.names)
    async for row in await session.stream(query):
        if row[-1] is None:
            # Sums over nothing: there is one such row where nothing is told apart.
            continue
        owners = dict(zip(reading.owners, row[:owners_end], strict=True))
        at_ns, spend, tokens, requests = row[names_end:]
        yield Use(
            owners=tuple(_owners(organization_id, reading.group.family, owners)),
            names=dict(zip(reading.names, row[owners_end:names_end], strict=True)),
            at_ns=int(at_ns),
            amounts={"spend": int(spend), "tokens": int(tokens), "requests": int(requests)},
        )


def _owners(
    organization_id: UUID, family: str, columns: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    """List the scopes that an entry belongs to; labels stand for themselves."""
    if family == "path":
        yield "organization", organization_id
        yield "key", columns.get("key_id")
        team_id, member_id = columns.get("team_id"), columns.get("member_id")
        yield "team", team_id
        yield "member", member_id
        if team_id is not None and member_id is not None:
            yield "member_in_team", derived_id("member_in_team", f"{member_id}/{team_id}")
    elif family == "offer":
        yield "installation", derived_id("installation", "")
        if columns.get("provider") is not None:
            yield "provider", derived_id("provider", columns["provider"])
    elif family == "pool":
        for pool_id in columns["pools"].split(","):
            yield "pool", UUID(hex=pool_id)
    else:
        yield family, columns[family]


def _query(organization_id: UUID, reading: _Reading) -> Select[*tuple[Any, ...]]:
    group = reading.group
    columns: list[SQLColumnExpression[Any]] = [
        getattr(Entry, name) for name in (*reading.owners, *reading.names)
    ]
    instant = Entry.admitted_at_ns if group.by_admission else Entry.settled_at_ns
    at_ns, groups = _told_apart(reading, instant)
    spend = Entry.cost_nanos if group.family == "offer" else Entry.charge_nanos
    sums = (
        func.sum(spend),
        func.sum(Entry.input_tokens + Entry.output_tokens),
        func.sum(Entry.requests),
    )
    query = select(*columns, at_ns, *sums).where(
        _of_organizations(organization_id, group.family),
        _of_scopes(group.family, [each.scope for each in reading.counters]),
        _in_time(reading, instant),
    )
    query = query.group_by(*columns, *groups)
    # All rows of a label come one after the other.
    return query.order_by(columns[0]) if group.family in _LABELS else query


def _told_apart(
    reading: _Reading, instant: SQLColumnExpression[int]
) -> tuple[ColumnElement[Any], list[ColumnElement[Any]]]:
    """Write the instant that a row tells, and by what of time rows are grouped."""
    group = reading.group
    if group.bucket_ns is not None and group.starts_at_ns is not None:
        return func.max(instant), [(instant - group.starts_at_ns) // group.bucket_ns]
    starts = reading.boundaries[:-1]
    if len(starts) == 1:
        return literal(starts[0]), []
    # The start of the stretch between two boundaries; each period is made of whole ones.
    stretch = _stretch(instant, starts)
    return func.min(stretch), [stretch]


def _stretch(instant: SQLColumnExpression[int], starts: Sequence[int]) -> ColumnElement[int]:
    """Find the last of sorted instants that is not after this one, by halving."""
    if len(starts) == 1:
        return _literal(starts[0])
    middle = len(starts) // 2
    earlier, later = _stretch(instant, starts[:middle]), _stretch(instant, starts[middle:])
    return case((instant < _literal(starts[middle]), earlier), else_=later)


def _literal(at_ns: int) -> ColumnElement[int]:
    """Write an instant into the text of a query, so that grouped expressions are seen as equal."""
    return literal(at_ns, literal_execute=True)


def _of_organizations(organization_id: UUID, family: str) -> ColumnElement[bool]:
    if family == "offer":
        # One after the other by the index that begins with them, rather than every row there is.
        return Entry.organization_id.in_(select(Organization.id))
    return Entry.organization_id == organization_id


def _of_scopes(family: str, scopes: Sequence[Scope]) -> ColumnElement[bool]:
    """Leave out entries of which no counter that is asked for could count any."""
    kinds = {scope.kind for scope in scopes}
    if family in _LABELS:
        label: SQLColumnExpression[str | None] = getattr(Entry, family)
        return label.is_not(None)
    if family == "pool":
        return Entry.pools != ""
    if family == "offer":
        return true() if "installation" in kinds else Entry.provider.is_not(None)
    if "organization" in kinds or len({scope.id for scope in scopes}) > SCOPES_NAMED_MAX:
        return true()
    columns = {"key": Entry.key_id, "team": Entry.team_id, "member": Entry.member_id}
    found: list[ColumnElement[bool]] = []
    for kind, column in columns.items():
        named = {scope.id for scope in scopes if scope.kind == kind}
        if named:
            found.append(column.in_(sorted(each for each in named if each is not None)))
    if "member_in_team" in kinds:
        found.append(and_(Entry.member_id.is_not(None), Entry.team_id.is_not(None)))
    return or_(*found)


def _in_time(reading: _Reading, instant: SQLColumnExpression[int]) -> ColumnElement[bool]:
    if reading.group.starts_at_ns is not None:
        return instant >= reading.group.starts_at_ns
    first, last = reading.boundaries[0], reading.boundaries[-1]
    return and_(instant >= first, instant < last)


async def _tallied(reading: _Reading, uses: AsyncIterator[Use]) -> list[dict[str, Any]]:
    """Hand each use to the counters of the scopes it belongs to, and give what they start from."""
    tallies: list[Tally | LabelTallies] = [
        LabelTallies(each) if each.scope.each else Tally(each) for each in reading.counters
    ]
    named: dict[tuple[str, Any], list[Tally]] = defaultdict(list)
    for counter, tally in zip(reading.counters, tallies, strict=True):
        if isinstance(tally, Tally):
            named[counter.scope.kind, counter.scope.id].append(tally)
    templates = [each for each in tallies if isinstance(each, LabelTallies)]
    is_labelled = reading.group.family in _LABELS
    async for use in uses:
        for kind, owner in use.owners:
            if is_labelled:
                for template in templates:
                    template.add(owner, use)
            if named:
                name = derived_id(kind, owner) if is_labelled else owner
                _add_to(named.get((kind, name), ()), use)
    return [
        each.seed() if isinstance(each, LabelTallies) else {"entries": each.entries()}
        for each in tallies
    ]


def _add_to(tallies: Iterable[Tally], use: Use) -> None:
    for tally in tallies:
        tally.add(use)
