"""Faults: the ways in which a provider lets its callers down, on demand.

A fault comes from a rule (`POST /_simulator/faults`, consumed `times` times) or from a directive
in the request itself. Which answer part each one spoils is decided in `chat`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

RULES_MAX = 100
AMOUNT_MAX = 1 << 30


class Fault(StrEnum):
    """Everything that can be asked for."""

    LATENCY = "latency"
    STATUS = "status"
    UNAUTHORIZED = "unauthorized"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    UNAVAILABLE = "unavailable"
    REDIRECT = "redirect"
    RESET_BEFORE_HEAD = "reset_before_head"
    RESET_MID_ANSWER = "reset_mid_answer"
    CLOSE_MID_ANSWER = "close_mid_answer"
    STALL_BEFORE_HEAD = "stall_before_head"
    STALL_MID_ANSWER = "stall_mid_answer"
    END_MID_ANSWER = "end_mid_answer"
    STALL_AFTER_DONE = "stall_after_done"
    SLOW_DRIP = "slow_drip"
    ERROR_MID_STREAM = "error_mid_stream"
    ERROR_AS_ANSWER = "error_as_answer"
    MISSING_DONE = "missing_done"
    UNFINISHED = "unfinished"
    IGNORED_CAP = "ignored_cap"
    MISSING_USAGE = "missing_usage"
    NEGATIVE_USAGE = "negative_usage"
    ABSURD_USAGE = "absurd_usage"
    IMPOSSIBLE_USAGE = "impossible_usage"
    STRING_USAGE = "string_usage"
    EARLY_USAGE = "early_usage"
    DOUBLE_USAGE = "double_usage"
    BAD_JSON = "bad_json"
    INVALID_UTF8 = "invalid_utf8"
    SPLIT_UTF8 = "split_utf8"
    LONG_LINE = "long_line"
    HUGE_ANSWER = "huge_answer"
    GZIP = "gzip"
    WRONG_CONTENT_TYPE = "wrong_content_type"
    ACCOUNT_HEADERS = "account_headers"


STATUS_OF = {
    Fault.UNAUTHORIZED: 401,
    Fault.RATE_LIMITED: 429,
    Fault.SERVER_ERROR: 500,
    Fault.UNAVAILABLE: 503,
    Fault.REDIRECT: 307,
    Fault.ERROR_AS_ANSWER: 200,
}


@dataclass(frozen=True, slots=True)
class FaultRule:
    """One fault with its parameters.

    `model` None: any model. `times` None: until cleared. `after_chunks`: chunks that still get
    through (of a JSON answer: bytes). `delay_ms`: how long latency or a stall lasts, or the pause
    between two bytes that drip; a stall of 0 lasts until the client leaves. `bytes`: size of a long
    line or a huge answer. `tokens`: the count that an absurd or impossible usage shows. `billed`:
    whether a fault that answers without generating (an error status, a reset before the head) is
    billed as if the whole answer had been generated. `gzip`, `html`: an error whose body is
    compressed, or a web page.
    """

    fault: Fault
    model: str | None = None
    times: int | None = None
    after_chunks: int = 1
    delay_ms: int = 0
    status: int = 500
    retry_after_s: int | None = None
    bytes: int = 2 << 20
    tokens: int | None = None
    location: str = "/v1/moved"
    billed: bool = False
    gzip: bool = False
    html: bool = False


_LEAST = {"times": 1, "status": 300}
_MOST = {"status": 599, "delay_ms": 3_600_000, "retry_after_s": 86_400, "tokens": 1 << 64}
_BOOLS = {"true": True, "1": True, "false": False, "0": False}
_TYPES = {
    **dict.fromkeys(("times", "after_chunks", "delay_ms", "status", "retry_after_s"), int),
    **dict.fromkeys(("bytes", "tokens"), int),
    **dict.fromkeys(("billed", "gzip", "html"), bool),
    "model": str,
    "location": str,
}


def fault_rule(fault: str, parameters: Mapping[str, Any]) -> FaultRule:
    """Make a rule out of a name and parameters, given as text or as JSON values.

    Raises ValueError, with a sentence that names what is wrong.
    """
    if fault not in set(Fault):
        raise ValueError(f"The simulator has no fault {fault!r}; it has: {', '.join(Fault)}.")
    given = {name: _parameter(name, value) for name, value in parameters.items()}
    return FaultRule(Fault(fault), **given)


def _parameter(name: str, value: Any) -> Any:
    wanted = _TYPES.get(name)
    if wanted is None:
        raise ValueError(f"A fault has no parameter {name!r}; it has: {', '.join(_TYPES)}.")
    if wanted is str and isinstance(value, str):
        return _text(name, value)
    if wanted is bool:
        return _truth(name, value)
    return _amount(name, value)


def _text(name: str, value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise ValueError(f"{name} is printable ASCII, not {value!r}.")
    return value


def _truth(name: str, value: Any) -> bool:
    truth = _BOOLS.get(str(value).lower())
    if truth is None:
        raise ValueError(f"{name} is true or false, not {value!r}.")
    return truth


def _amount(name: str, value: Any) -> int:
    least, most = _LEAST.get(name, 0), _MOST.get(name, AMOUNT_MAX)
    text = str(value)
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise ValueError(f"{name} is a whole number from {least} to {most}, not {value!r}.")
    return int(text)


class FaultRules:
    """The rules in force, first match wins; each match uses up one of `times`."""

    def __init__(self) -> None:
        self._rules: list[FaultRule] = []

    def __bool__(self) -> bool:
        return bool(self._rules)

    def add(self, rule: FaultRule) -> None:
        """Append a rule. Raises ValueError when there are RULES_MAX already."""
        if len(self._rules) >= RULES_MAX:
            raise ValueError(f"There are {RULES_MAX} fault rules already; clear some first.")
        self._rules.append(rule)

    def take(self, model: str) -> FaultRule | None:
        """Give the fault for one request to this model and count it."""
        for index, rule in enumerate(self._rules):
            if rule.model in (None, model):
                self._use(index, rule)
                return rule
        return None

    def clear(self) -> None:
        """Forget every rule."""
        self._rules.clear()

    def shown(self) -> list[dict[str, Any]]:
        """List the rules, with the times that are left."""
        return [
            {field.name: getattr(rule, field.name) for field in fields(rule)}
            for rule in self._rules
        ]

    def _use(self, index: int, rule: FaultRule) -> None:
        if rule.times is None:
            return
        if rule.times > 1:
            self._rules[index] = replace(rule, times=rule.times - 1)
        else:
            del self._rules[index]
