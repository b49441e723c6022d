"""Directives: how a test that only has an SDK steers one answer.

A user message may hold `[[sim output=300 pace=50 latency_ms=20 fault=stall after_chunks=3]]`.
The text stays part of the prompt and is counted as such; a later directive adds to an earlier one.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from comptroller.simulator.faults import FaultRule, fault_rule
from comptroller.simulator.lengths import OutputLength, parse_length

DIRECTIVE = re.compile(r"\[\[sim\s+([^\]]*)\]\]")
PACE_MAX = 1_000_000
LATENCY_MS_MAX = 3_600_000
# The most that one token is billed, or a maximum is exceeded.
TIMES_MAX = 100


@dataclass(frozen=True, slots=True)
class Directives:
    """What a request asks of its own answer; None means: as the server is set.

    `pace` and `reasoning_pace` are in tokens a second, 0 as fast as possible; `tool` names the
    function to call.
    """

    output: OutputLength | None = None
    pace: int | None = None
    reasoning: OutputLength | None = None
    reasoning_pace: int | None = None
    exceed: int | None = None
    overbill: int | None = None
    latency_ms: int | None = None
    tool: str | None = None
    fault: FaultRule | None = None


NO_DIRECTIVES = Directives()


def read_directives(texts: Iterable[str]) -> Directives:
    """Read the directives in some texts.

    Raises ValueError, with a sentence that names the word it does not know.
    """
    words = dict(_split(word) for text in texts for word in _words(text))
    if not words:
        return NO_DIRECTIVES
    known = {key: read(key, words.pop(key)) for key, read in _READ.items() if key in words}
    fault = words.pop("fault", None)
    if fault is None and words:
        raise ValueError(f"The simulator does not know the directive {min(words)!r}.")
    return Directives(**known, fault=fault_rule(fault, words) if fault is not None else None)


def _words(text: str) -> list[str]:
    if "[[sim" not in text:
        return []
    return [word for match in DIRECTIVE.finditer(text) for word in match[1].split()]


def _split(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not (key and equals and value):
        raise ValueError(f"A directive is written key=value, not {word!r}.")
    return key, value


def _number(value_min: int, value_max: int) -> Callable[[str, str], int]:
    def read(name: str, value: str) -> int:
        if not (value.isascii() and value.isdigit() and value_min <= int(value) <= value_max):
            raise ValueError(
                f"{name} is a whole number from {value_min} to {value_max}, not {value!r}."
            )
        return int(value)

    return read


def _length(_: str, value: str) -> OutputLength:
    return parse_length(value)


def _text(_: str, value: str) -> str:
    return value


_READ: dict[str, Callable[[str, str], Any]] = {
    "output": _length,
    "pace": _number(0, PACE_MAX),
    "reasoning": _length,
    "reasoning_pace": _number(0, PACE_MAX),
    "exceed": _number(1, TIMES_MAX),
    "overbill": _number(1, TIMES_MAX),
    "latency_ms": _number(0, LATENCY_MS_MAX),
    "tool": _text,
}
