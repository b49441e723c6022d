"""What the request path hands to the ledger: values, cheap to build, never changed."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal
from uuid import UUID

import msgspec

from controlplane.clock import instant

Decision = Literal["allowed", "refused", "failed"]
UsageSource = Literal["provider", "own_count", "held", "none"]

_DAY_NS = 86_400 * 1_000_000_000


class LedgerEntry(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The settlement of a record's request.

    Whose it is and what was booked stands in the record that carries it, so that the two cannot
    disagree.
    """

    settled_at_ns: int
    overrun_nanos: int = 0


class Crossing(msgspec.Struct, frozen=True, gc=False):
    """A percentage of a limit that a settlement was the first of its period to reach.

    `settled` and `cap` are in the limit's unit, nano units for money. `repeated_at_ns` is 0, or the
    instant at which it is told again that a soft limit is still passed, after its cooldown.
    """

    limit_id: UUID
    period_start_ns: int
    percent: int
    settled: int
    cap: int
    repeated_at_ns: int = 0


class BreakerEvent(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One window of a breaker has opened or closed; `sum_nanos` is what it had counted then."""

    organization_id: UUID
    limit_id: UUID
    scope_kind: str
    scope_id: UUID
    is_open: bool
    sum_nanos: int
    cap_nanos: int
    at_ns: int


class DecisionRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Everything about one request that is kept: field O1 of the product.

    Instants are wall-clock nanoseconds since the epoch, amounts nano units of `currency`.
    """

    # Identity. `id` is the request's and the reservation's: 16 bytes of a UUID.
    id: bytes
    organization_id: UUID
    key_id: UUID
    team_id: UUID | None = None
    member_id: UUID | None = None
    cost_center_id: UUID | None = None
    end_user: str | None = None
    agent: str | None = None
    session: str | None = None

    # Intent. `tags` is a JSON object of strings, as encoded.
    route: str
    intent: str | None = None
    feature: str | None = None
    environment: str | None = None
    request_class: str | None = None
    tags: bytes = b"{}"

    # Routing. `model` is the name callers use for what served, `served_model` the provider's.
    policy_version: str
    requested_model: str | None = None
    model: str | None = None
    served_model: str | None = None
    provider: str | None = None
    tier: str | None = None
    fallback_reason: str | None = None

    # Billing. `held_nanos` was reserved at first; `bound_nanos`, times `calibration`, is the most.
    currency: str
    invoice_period: str
    price_version: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    held_nanos: int = 0
    bound_nanos: int = 0
    calibration: int = 1
    cost_nanos: int = 0
    charge_nanos: int = 0
    usage_source: UsageSource = "none"

    # Enforcement. `remaining_nanos` is that of the tightest hard spend limit after admission.
    # `steps` is a JSON list of those taken, `pools` the hex ids of the key's at admission.
    decision: Decision
    code: str | None = None
    limit_id: UUID | None = None
    limit_scope: str | None = None
    remaining_nanos: int | None = None
    rate_limit_bucket: str | None = None
    over_limit_action: str | None = None
    steps: bytes = b"[]"
    waited_ns: int = 0
    extensions: int = 0
    cut_limit_id: UUID | None = None
    pools: str = ""
    http_status: int

    # Course. `seen` is JSON: the counter values the decision saw, for replay.
    admitted_at_ns: int
    finished_at_ns: int
    latency_ns: int
    first_byte_at_ns: int | None = None
    streamed: bool = False
    assembled: bool = False
    upstream_status: int | None = None
    client_disconnected: bool = False
    output_cap: int | None = None
    engine_version: str
    seen: bytes = b"{}"
    error_code: str | None = None

    # Only a settled request has an entry; `seq` is its place among its organization's settlements.
    entry: LedgerEntry | None = None
    seq: int = 0

    # Rows of their own, written with the entry: percentages it was the first to reach, and the
    # ratio to which its overrun raises the calibration of its model.
    crossings: tuple[Crossing, ...] = ()
    calibration_raised: int | None = None


def invoice_period(admitted_at_ns: int) -> str:
    """Name the month, in UTC, on whose invoice a request admitted at this instant appears."""
    return _month_of_day(admitted_at_ns // _DAY_NS)


@lru_cache(maxsize=64)
def _month_of_day(day: int) -> str:
    return f"{instant(day * _DAY_NS):%Y-%m}"
