"""Which requests are meant: one set of conditions for lists, sums and reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, SQLColumnExpression, func, literal, or_
from sqlalchemy.types import String

from controlplane.authz import Action, Caller, Reach
from controlplane.errors import InvalidInput
from controlplane.ledger.models import DecisionRow
from controlplane.usage.expressions import TagValue

FILTER_VALUES_MAX = 100
# Labels have at most 200 characters; names of models may be longer.
FILTER_TEXT_LENGTH_MAX = 500

# A refused request was served by no model: then the one it asked for counts.
MODEL: Final = func.coalesce(DecisionRow.served_model, DecisionRow.requested_model)


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Which requests are meant; an empty tuple and None mean any.

    Each field that is given must hold, with one of its values. Of `tags`, pairs of name and value,
    each name must hold with one of the values given for it.
    """

    models: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    decisions: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    http_statuses: tuple[int, ...] = ()
    upstream_statuses: tuple[int, ...] = ()
    key_ids: tuple[UUID, ...] = ()
    team_ids: tuple[UUID, ...] = ()
    member_ids: tuple[UUID, ...] = ()
    cost_center_ids: tuple[UUID, ...] = ()
    features: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    end_users: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    request_classes: tuple[str, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    streamed: bool | None = None
    charge_nanos_min: int | None = None
    charge_nanos_max: int | None = None
    latency_ns_min: int | None = None
    request_id: UUID | None = None
    # Those of a team or of a member, whichever: what a team's admin may see.
    in_sight_of: tuple[UUID | None, UUID] | None = None


ANY_REQUEST = RequestFilter()

_COLUMNS: Final[tuple[tuple[str, str, SQLColumnExpression[Any]], ...]] = (
    ("models", "models", MODEL),
    ("providers", "providers", DecisionRow.provider),
    ("decisions", "decisions", DecisionRow.decision),
    ("outcomes", "outcomes", DecisionRow.decision),
    ("codes", "codes", DecisionRow.code),
    ("http_statuses", "httpStatus", DecisionRow.http_status),
    ("upstream_statuses", "upstreamStatus", DecisionRow.upstream_status),
    ("key_ids", "keyIds", DecisionRow.key_id),
    ("team_ids", "teamIds", DecisionRow.team_id),
    ("member_ids", "memberIds", DecisionRow.member_id),
    ("cost_center_ids", "costCenterIds", DecisionRow.cost_center_id),
    ("features", "features", DecisionRow.feature),
    ("agents", "agents", DecisionRow.agent),
    ("end_users", "endUsers", DecisionRow.end_user),
    ("sessions", "sessions", DecisionRow.session),
    ("environments", "environments", DecisionRow.environment),
    ("request_classes", "requestClasses", DecisionRow.request_class),
)


def conditions(
    organization_id: UUID, starts_ns: int | None, ends_ns: int | None, wanted: RequestFilter
) -> Iterator[ColumnElement[bool]]:
    """Write as conditions which requests of an organization, admitted in [starts, ends), are meant.

    Raises `InvalidInput` for a list or text that is too long.
    """
    yield DecisionRow.organization_id == organization_id
    if starts_ns is not None:
        yield DecisionRow.admitted_at_ns >= starts_ns
    if ends_ns is not None:
        yield DecisionRow.admitted_at_ns < ends_ns
    for attribute, name, column in _COLUMNS:
        values = _checked(name, getattr(wanted, attribute))
        if values:
            yield _one_of(column, values)
    yield from _tagged(wanted.tags)
    yield from _within(wanted)


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
        return replace(wanted, in_sight_of=(membership.team_id, membership.member_id))
    member_ids = _narrowed(wanted.member_ids, membership.member_id)
    return replace(wanted, member_ids=member_ids) if member_ids else None


def checked_label(text: str, name: str) -> str:
    """Accept a text that a record could hold.

    Raises `InvalidInput`: a database refuses NUL and lone surrogates with an error of its own.
    """
    is_storable = "\0" not in text and not any("\ud800" <= each <= "\udfff" for each in text)
    if len(text) > FILTER_TEXT_LENGTH_MAX or not is_storable:
        raise InvalidInput(
            f"A value of `{name}` has at most {FILTER_TEXT_LENGTH_MAX} characters, none of them "
            "NUL or half of a pair.",
            field=("filter", name),
        )
    return text


def _checked(name: str, values: Sequence[Any]) -> Sequence[Any]:
    if len(values) > FILTER_VALUES_MAX:
        raise InvalidInput(
            f"`{name}` takes at most {FILTER_VALUES_MAX} values.", field=("filter", name)
        )
    for each in values:
        if isinstance(each, str):
            checked_label(each, name)
    return values


def _one_of(column: SQLColumnExpression[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    # Equality lets SQLite read an index in the order of the page; a list of one does not.
    return column == values[0] if len(values) == 1 else column.in_(values)


def _tagged(tags: Sequence[tuple[str, str]]) -> Iterator[ColumnElement[bool]]:
    _checked("tags", [text for pair in tags[:FILTER_VALUES_MAX] for text in pair[:1]])
    _checked("tags", [value for _, value in tags])
    by_name: dict[str, list[str]] = {}
    for name, value in tags:
        by_name.setdefault(name, []).append(value)
    for name, values in by_name.items():
        yield _one_of(tag_value(name), values)


def tag_value(name: str) -> ColumnElement[str]:
    """Write the value of a tag, NULL where a request has none of this name."""
    return TagValue(DecisionRow.tags, literal(name, String()))


def _within(wanted: RequestFilter) -> Iterator[ColumnElement[bool]]:
    if wanted.streamed is not None:
        yield DecisionRow.streamed == wanted.streamed
    if wanted.charge_nanos_min is not None:
        yield DecisionRow.charge_nanos >= wanted.charge_nanos_min
    if wanted.charge_nanos_max is not None:
        yield DecisionRow.charge_nanos <= wanted.charge_nanos_max
    if wanted.latency_ns_min is not None:
        yield DecisionRow.latency_ns >= wanted.latency_ns_min
    if wanted.request_id is not None:
        yield DecisionRow.id == wanted.request_id
    if wanted.in_sight_of is not None:
        team_id, member_id = wanted.in_sight_of
        is_own = DecisionRow.member_id == member_id
        yield is_own if team_id is None else or_(DecisionRow.team_id == team_id, is_own)


def _narrowed(asked: tuple[UUID, ...], own: UUID | None) -> tuple[UUID, ...]:
    if own is None or (asked and own not in asked):
        return ()
    return (own,)
