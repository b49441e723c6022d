"""The bill: what the simulated provider has charged, to the nano dollar, at every instant.

A request is on the bill from the moment its prompt is accepted and grows with each token it
generates, so the running total is what a real provider would invoice if the world stopped now.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from comptroller.simulator.models import Model

NANOS_PER_UNIT = 10**9
# Lines by request id that are kept; the totals go on when the oldest are dropped.
REQUEST_LINES_MAX = 100_000
VIOLATIONS_MAX = 1_000


@dataclass(slots=True)
class Sum:
    """What a group of requests has been charged."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    nanos: int = 0

    def add(self, prompt_tokens: int, completion_tokens: int, nanos: int) -> None:
        """Add tokens and money of a request that is already counted."""
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        self.nanos += nanos

    def shown(self) -> dict[str, Any]:
        """Write the sum as JSON values; `amount` is an exact decimal string in dollars."""
        return {
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "nanos": self.nanos,
            "amount": amount_text(self.nanos),
        }


@dataclass(frozen=True, slots=True)
class Violation:
    """A moment at which the running total was above what had been asserted."""

    at: datetime
    total_nanos: int
    max_nanos: int
    request_id: str | None


@dataclass(slots=True)
class Line:
    """One request on the bill while it is being answered."""

    model: Model
    request_id: str | None
    sums: tuple[Sum, ...]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    nanos: int = 0
    is_violation: bool = False


@dataclass(slots=True)
class Bill:
    """The running bill. Owned by one event loop; not for use from two threads."""

    wall_now: Callable[[], datetime]
    total: Sum = field(default_factory=Sum)
    by_model: dict[str, Sum] = field(default_factory=dict)
    by_request: OrderedDict[str, Sum] = field(default_factory=OrderedDict)
    open_requests: int = 0
    open_requests_high_water: int = 0
    request_lines_dropped: int = 0
    max_nanos: int | None = None
    high_water_nanos: int = 0
    violations: list[Violation] = field(default_factory=list)
    violation_count: int = 0

    def open(self, model: Model, request_id: str | None, prompt_tokens: int) -> Line:
        """Put an accepted request on the bill with its prompt and its price per request."""
        sums = (self.total, self._of_model(model.name), *self._of_request(request_id))
        for each in sums:
            each.requests += 1
        line = Line(model, request_id, sums)
        self.open_requests += 1
        self.open_requests_high_water = max(self.open_requests_high_water, self.open_requests)
        self._book(line, prompt_tokens, 0)
        return line

    def generated(self, line: Line, tokens: int) -> None:
        """Book tokens that a request has just generated."""
        self._book(line, 0, tokens)

    def close(self) -> None:
        """Count one request as finished; nothing is added to it any more."""
        self.open_requests -= 1

    def reset(self) -> None:
        """Start a new bill; what is still being generated stays on the old one."""
        self.total = Sum()
        self.by_model = {}
        self.by_request = OrderedDict()
        self.open_requests_high_water = self.open_requests
        self.request_lines_dropped = 0
        self.max_nanos = None
        self.high_water_nanos = 0
        self.violations = []
        self.violation_count = 0

    def assert_max(self, max_nanos: int) -> None:
        """Watch the running total from now on; being above already is a violation."""
        self.max_nanos = max_nanos
        if self.total.nanos > max_nanos:
            self._violated(None)

    def shown(self) -> dict[str, Any]:
        """Write the bill as JSON values."""
        asserted = self.max_nanos
        return {
            "currency": "USD",
            "total": amount_text(self.total.nanos),
            "total_nanos": self.total.nanos,
            "high_water": amount_text(self.high_water_nanos),
            "high_water_nanos": self.high_water_nanos,
            "requests": self.total.requests,
            "prompt_tokens": self.total.prompt_tokens,
            "completion_tokens": self.total.completion_tokens,
            "open_requests": self.open_requests,
            "open_requests_high_water": self.open_requests_high_water,
            "by_model": {name: each.shown() for name, each in self.by_model.items()},
            "by_request": {name: each.shown() for name, each in self.by_request.items()},
            "request_lines_dropped": self.request_lines_dropped,
            "asserted_max": None if asserted is None else amount_text(asserted),
            "violation_count": self.violation_count,
            "violations": [_shown_violation(each) for each in self.violations],
        }

    def _book(self, line: Line, prompt_tokens: int, completion_tokens: int) -> None:
        line.prompt_tokens += prompt_tokens
        line.completion_tokens += completion_tokens
        # Priced as a whole each time: adding up rounded parts would charge the rounding twice.
        nanos = line.model.cost_nanos(line.prompt_tokens, line.completion_tokens)
        for each in line.sums:
            each.add(prompt_tokens, completion_tokens, nanos - line.nanos)
        line.nanos = nanos
        self.high_water_nanos = max(self.high_water_nanos, self.total.nanos)
        self._watch(line)

    def _watch(self, line: Line) -> None:
        is_stale = line.sums[0] is not self.total
        if (
            self.max_nanos is None
            or line.is_violation
            or is_stale
            or self.total.nanos <= self.max_nanos
        ):
            return
        # Once per request, else one long stream would fill the list.
        line.is_violation = True
        self._violated(line.request_id)

    def _violated(self, request_id: str | None) -> None:
        self.violation_count += 1
        if self.max_nanos is not None and len(self.violations) < VIOLATIONS_MAX:
            now = self.wall_now()
            self.violations.append(Violation(now, self.total.nanos, self.max_nanos, request_id))

    def _of_model(self, name: str) -> Sum:
        return self.by_model.setdefault(name, Sum())

    def _of_request(self, request_id: str | None) -> tuple[Sum, ...]:
        if request_id is None:
            return ()
        found = self.by_request.setdefault(request_id, Sum())
        if len(self.by_request) > REQUEST_LINES_MAX:
            self.by_request.popitem(last=False)
            self.request_lines_dropped += 1
        return (found,)


def amount_text(nanos: int) -> str:
    """Write nano dollars as an exact decimal: at least two places, no other trailing zeros."""
    whole, fraction = divmod(abs(nanos), NANOS_PER_UNIT)
    digits = f"{fraction:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nanos < 0 else ''}{whole}.{digits}"


def amount_nanos(text: str) -> int:
    """Read a decimal amount of dollars as nano dollars.

    Raises ValueError where it is no number, negative, or finer than one nano dollar.
    """
    try:
        nanos = Decimal(text) * NANOS_PER_UNIT
    except ArithmeticError:
        raise ValueError(f"{text!r} is not an amount.") from None
    if not nanos.is_finite() or nanos < 0 or nanos != nanos.to_integral_value():
        raise ValueError(f"{text!r} is not an amount of whole nano dollars.")
    return int(nanos)


def _shown_violation(violation: Violation) -> dict[str, Any]:
    return {
        "at": violation.at.isoformat(),
        "total": amount_text(violation.total_nanos),
        "total_nanos": violation.total_nanos,
        "max_nanos": violation.max_nanos,
        "request_id": violation.request_id,
    }
