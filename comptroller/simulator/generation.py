"""What is answered: every choice is planned as pieces before the first byte is sent.

A piece is what one chunk of a stream carries, with the tokens it costs. Text has one token a
piece; the arguments of a tool call are cut into a few pieces that add up to their exact count.
Hidden reasoning comes first, in pieces that no chunk carries.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import msgspec

from comptroller.simulator.lengths import OutputLength
from comptroller.simulator.models import Model
from comptroller.simulator.requests import ChatRequest, Tool
from comptroller.simulator.tokens import count_tokens

ARGUMENT_PIECES = 4
SCHEMA_DEPTH_MAX = 8


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk's worth of an answer and what it costs in tokens; a hidden one is not written."""

    text: str
    tokens: int = 1
    is_hidden: bool = False


REASONING = Piece("", is_hidden=True)


@dataclass(frozen=True, slots=True)
class Choice:
    """One planned answer; `tool` names the function it calls, else it is text."""

    pieces: tuple[Piece, ...]
    finish_reason: str
    tool: str | None = None
    call_id: str = ""

    @property
    def text(self) -> str:
        """The whole text, or the whole arguments of the call."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def tokens(self) -> int:
        """The tokens of all pieces."""
        return sum(piece.tokens for piece in self.pieces)


def plan_choices(
    request: ChatRequest,
    model: Model,
    *,
    words: Sequence[str],
    length: OutputLength,
    seed: str,
    reasoning: OutputLength,
) -> tuple[Choice, ...]:
    """Plan every choice of an answer: equal arguments give an equal plan.

    Each choice reasons as long as the others, within the maximum of the request.
    """
    allowed = _allowed(request, model)
    thought_tokens = min(reasoning.draw(Random(f"{seed}/reasoning")), allowed)  # noqa: S311
    thought = (REASONING,) * thought_tokens
    spoken = _plan_visible(request, model, words, length, seed, allowed - thought_tokens)
    return tuple(replace(choice, pieces=thought + choice.pieces) for choice in spoken)


def _allowed(request: ChatRequest, model: Model) -> int:
    return min(request.output_tokens_max or model.output_tokens_max, model.output_tokens_max)


def _plan_visible(
    request: ChatRequest,
    model: Model,
    words: Sequence[str],
    length: OutputLength,
    seed: str,
    allowed: int,
) -> tuple[Choice, ...]:
    tool = _called_tool(request)
    plans = (Random(f"{seed}/{index}") for index in range(request.choices))  # noqa: S311
    if tool is not None:
        return tuple(_call(tool, model, allowed, random) for random in plans)
    return tuple(_text(request, words, length, allowed, random) for random in plans)


def _text(
    request: ChatRequest, words: Sequence[str], length: OutputLength, allowed: int, random: Random
) -> Choice:
    wanted = length.draw(random)
    is_at_maximum = request.output_tokens_max is not None and wanted == allowed
    is_cut = wanted > allowed or is_at_maximum
    pieces = tuple(map(Piece, random.choices(words, k=min(wanted, allowed))))
    stopped = _before_stop(pieces, request.stops)
    if stopped is not None:
        return Choice(stopped, "stop")
    return Choice(pieces, "length" if is_cut else "stop")


def _before_stop(pieces: tuple[Piece, ...], stops: tuple[str, ...]) -> tuple[Piece, ...] | None:
    """Cut before the first stop sequence; None where there is none."""
    text = "".join(piece.text for piece in pieces)
    found = [at for at in (text.find(stop) for stop in stops if stop) if at >= 0]
    return tuple(_up_to(pieces, min(found))) if found else None


def _up_to(pieces: tuple[Piece, ...], end: int) -> Iterator[Piece]:
    for piece in pieces:
        if end <= 0:
            return
        yield Piece(piece.text[:end], piece.tokens)
        end -= len(piece.text)


def _called_tool(request: ChatRequest) -> Tool | None:
    """Decide whether the answer calls a tool, and which.

    `tool_choice` decides where it does; else a directive or a tool's name in the last message.
    """
    if not request.tools or request.tool_choice == "none":
        return None
    named = _named_choice(request.tool_choice) or request.directives.tool
    if named is not None:
        return next((tool for tool in request.tools if tool.function.name == named), None)
    if request.tool_choice == "required":
        return request.tools[0]
    last = " ".join(request.messages[-1].texts()) if request.messages[-1].role == "user" else ""
    return next((tool for tool in request.tools if tool.function.name in last), None)


def _named_choice(tool_choice: Any) -> str | None:
    if not isinstance(tool_choice, dict) or not isinstance(tool_choice.get("function"), dict):
        return None
    name = tool_choice["function"].get("name")
    return name if isinstance(name, str) else None


def _call(tool: Tool, model: Model, allowed: int, random: Random) -> Choice:
    arguments = msgspec.json.encode(_example(tool.function.parameters)).decode()
    pieces = tuple(_argument_pieces(arguments, tool.function.name, model.vocabulary))
    kept = tuple(_affordable(pieces, allowed))
    finish_reason = "tool_calls" if len(kept) == len(pieces) else "length"
    return Choice(kept, finish_reason, tool.function.name, f"call_{random.getrandbits(96):024x}")


def _argument_pieces(arguments: str, name: str, vocabulary: str) -> Iterator[Piece]:
    """Cut the arguments; the name is paid for by a first, empty piece."""
    yield Piece("", count_tokens(vocabulary, name))
    size = -(-len(arguments) // ARGUMENT_PIECES)
    paid = 0
    for start in range(0, len(arguments), size):
        count = max(paid, count_tokens(vocabulary, arguments[: start + size]))
        yield Piece(arguments[start : start + size], count - paid)
        paid = count


def _affordable(pieces: tuple[Piece, ...], tokens_max: int) -> Iterator[Piece]:
    for piece in pieces:
        tokens_max -= piece.tokens
        if tokens_max < 0:
            return
        yield piece


def _example(schema: Any, depth: int = 0) -> Any:
    """Make a value that a JSON schema accepts, simple types and `enum` only."""
    if not isinstance(schema, dict) or depth >= SCHEMA_DEPTH_MAX:
        return None
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    properties = schema.get("properties")
    if isinstance(properties, dict):
        return {name: _example(each, depth + 1) for name, each in properties.items()}
    return _EXAMPLES.get(str(schema.get("type")), {})


_EXAMPLES: dict[str, Any] = {
    "string": "river",
    "integer": 7,
    "number": 7,
    "boolean": True,
    "array": [],
    "null": None,
}
