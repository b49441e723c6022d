"""Directives: how a test that only has an SDK steers one answer.

A user message may hold `[[sim output=300 pace=50 latency_ms=20 fault=stall after_chunks=3]]`.
The text stays part of the prompt and is counted as such; a later directive adds to an earlier one.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from comptroller.simulator.faults import FaultRule, fault_rule
from comptroller.simulator.lengths import OutputLength, parse_length

DIRECTIVE = re.compile(r"\[\[sim\s+([^\]]*)\]\]")
PACE_MAX = 1_000_000
LATENCY_MS_MAX = 3_600_000


@dataclass(frozen=True, slots=True)
class Directives:
    """What a request asks of its own answer; None means: as the server is set.

    `pace` is in tokens a second, 0 as fast as possible; `tool` names the function to call.
    """

    output: OutputLength | None = None
    pace: int | None = None
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
    output, pace, latency_ms, tool, fault = (
        words.pop(key, None) for key in ("output", "pace", "latency_ms", "tool", "fault")
    )
    if fault is None and words:
        raise ValueError(f"The simulator does not know the directive {min(words)!r}.")
    return Directives(
        output=parse_length(output) if output is not None else None,
        pace=_bounded("pace", pace, PACE_MAX),
        latency_ms=_bounded("latency_ms", latency_ms, LATENCY_MS_MAX),
        tool=tool,
        fault=fault_rule(fault, words) if fault is not None else None,
    )


def _words(text: str) -> list[str]:
    if "[[sim" not in text:
        return []
    return [word for match in DIRECTIVE.finditer(text) for word in match[1].split()]


def _split(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not (key and equals and value):
        raise ValueError(f"A directive is written key=value, not {word!r}.")
    return key, value


def _bounded(name: str, value: str | None, value_max: int) -> int | None:
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and int(value) <= value_max):
        raise ValueError(f"{name} is a whole number from 0 to {value_max}, not {value!r}.")
    return int(value)
