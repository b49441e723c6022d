"""What requests add up to, exactly, whatever the number and the amounts.

A sum of 64-bit integers may need more than 64 bits: SQLite refuses such a sum, and one odd record
would spoil every report it is in. Each amount is therefore summed in two halves of 32 bits, which
cannot overflow below two thousand million rows, and put together here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, FromClause, Label, case, cast, func
from sqlalchemy import literal_column as written

from controlplane.ledger.models import DecisionRow

_HALF_BITS: Final = 32
_LOW_HALF: Final = 2**_HALF_BITS - 1

_AMOUNTS: Final = {
    "cost": DecisionRow.charge_nanos,
    "input_tokens": DecisionRow.input_tokens,
    "output_tokens": DecisionRow.output_tokens,
    "cached_tokens": DecisionRow.cached_tokens,
}
_COUNTS: Final = {
    "requests": written("1"),
    "blocked": case(
        (DecisionRow.decision == written("'refused'"), written("1")), else_=written("0")
    ),
    "failed": case((DecisionRow.decision == written("'failed'"), written("1")), else_=written("0")),
}
_SUMS: Final = (
    *(f"{name}_{half}" for name in _AMOUNTS for half in ("high", "low")),
    *_COUNTS,
)


@dataclass(frozen=True, slots=True)
class Totals:
    """What some requests add up to; `cost_nanos` is what was booked for them."""

    cost_nanos: int = 0
    requests: int = 0
    blocked: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: Totals) -> Totals:
        """Add them up."""
        return Totals(
            self.cost_nanos + other.cost_nanos,
            self.requests + other.requests,
            self.blocked + other.blocked,
            self.failed + other.failed,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
        )


NOTHING: Final = Totals()


def parts() -> list[Label[Any]]:
    """Name what of a record is summed, to be selected and then given to `sums`."""
    halves: list[Label[Any]] = []
    for name, column in _AMOUNTS.items():
        halves.append(_high(column).label(f"{name}_high"))
        halves.append(_low(column).label(f"{name}_low"))
    return [*halves, *(count.label(name) for name, count in _COUNTS.items())]


def sums(rows: FromClause) -> list[Label[int]]:
    """Sum what `parts` or `sums` selected."""
    return [total(rows, name).label(name) for name in _SUMS]


def total(
    rows: FromClause, name: str, partition_by: Sequence[ColumnElement[Any]] = ()
) -> ColumnElement[int]:
    """Sum one of the sums, over all rows or, with `partition_by`, beside each row of its part."""
    summed: ColumnElement[int] = func.sum(rows.c[name])
    if partition_by:
        summed = func.sum(rows.c[name]).over(partition_by=partition_by)
    # PostgreSQL sums 64-bit integers as numbers of another type.
    return cast(summed, BigInteger())


def read_totals(row: Any) -> Totals:
    """Read a row of `sums`; of no requests at all they are NULL."""
    amounts = {
        name: ((getattr(row, f"{name}_high") or 0) << _HALF_BITS)
        + (getattr(row, f"{name}_low") or 0)
        for name in _AMOUNTS
    }
    counts = {name: getattr(row, name) or 0 for name in _COUNTS}
    return Totals(cost_nanos=amounts.pop("cost"), **amounts, **counts)


def by_cost(high: ColumnElement[int], low: ColumnElement[int]) -> tuple[ColumnElement[int], ...]:
    """Write a sum, given in its halves, as what orders by it."""
    return high + _high(low), _low(low)


def _high(column: Any) -> ColumnElement[int]:
    shifted: ColumnElement[int] = column.bitwise_rshift(written(str(_HALF_BITS)))
    return cast(shifted, BigInteger())


def _low(column: Any) -> ColumnElement[int]:
    masked: ColumnElement[int] = column.bitwise_and(written(str(_LOW_HALF)))
    return cast(masked, BigInteger())
