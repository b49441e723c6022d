"""OpenAI's chat completions: which fields cost money, and what is passed on.

Every field of a request is in one of three tables; one in none is refused, because a field we
do not know could change the price. What was priced is what is forwarded: the body is passed on
as it came, with single values spliced.
"""

from __future__ import annotations

from typing import Any

import msgspec

from core_rs import WireError, chat_facts, count_chat_tokens, scan_object
from proxy.errors import Problem, invalid_request

MODEL_NAME_LENGTH_MAX = 200
CHOICES_MAX = 128
OUTPUT_TOKENS_MAX = 2**31 - 1
# The text that providers write around `functions`, as the engine allows for `tools`.
FUNCTIONS_TOKENS = 256

# They change what is written, not what a token costs.
NEUTRAL = frozenset(
    {
        "frequency_penalty", "function_call", "logit_bias", "logprobs", "metadata",
        "parallel_tool_calls", "presence_penalty", "prompt_cache_key", "prompt_cache_retention",
        "reasoning_effort", "safety_identifier", "seed", "stop", "store", "temperature",
        "tool_choice", "top_logprobs", "top_p", "user", "verbosity",
    }
)  # fmt: skip
PRICED = frozenset(
    {
        "functions", "max_completion_tokens", "max_tokens", "messages", "modalities", "model", "n",
        "response_format", "service_tier", "stream", "stream_options", "tools",
    }
)  # fmt: skip
# Their cost does not follow from tokens we can bound before the request is sent.
UNBOUNDED = frozenset({"audio", "prediction", "web_search_options"})
STREAM_OPTIONS = frozenset({"include_obfuscation", "include_usage"})

Span = tuple[int, int]


class ChatRequest(msgspec.Struct, frozen=True, gc=False):
    """A chat request as far as it decides about money."""

    body: bytes
    spans: dict[str, Span]
    model: str
    input_tokens_max: int
    output_tokens_cap: int | None
    choices: int
    streams: bool
    wants_usage: bool

    def upstream_body(
        self, upstream_model: str, *, streams: bool, output_cap: tuple[str, int] | None = None
    ) -> bytes:
        """Give the body to forward: the model's name there, and usage always asked for.

        `streams` asks for a stream, also where the caller did not. `output_cap` names the field
        and the most tokens of an answer, for a request that says nothing of it.
        """
        edits: list[tuple[Span, bytes]] = []
        if upstream_model != self.model:
            edits.append((self.spans["model"], msgspec.json.encode(upstream_model)))
        if streams and not self.streams:
            edits.append(self._member_edit("stream", b"true"))
        if streams and not self.wants_usage:
            edits.append(self._usage_edit())
        if output_cap is not None:
            edits.append(self._member_edit(output_cap[0], b"%d" % output_cap[1]))
        return _splice(self.body, edits)

    def input_tokens_counted(self, vocabulary: str) -> int:
        """Count the input with a tokenizer: about 50 µs per KB, never below what is billed."""
        counted = count_chat_tokens(
            vocabulary,
            self._value("messages") or b"[]",
            self._value("tools"),
            self._value("response_format"),
        )
        return counted + _functions_tokens(self.spans)

    def _value(self, name: str) -> bytes | None:
        span = self.spans.get(name)
        return None if span is None else self.body[span[0] : span[1]]

    def _usage_edit(self) -> tuple[Span, bytes]:
        given = self._value("stream_options")
        if given is None or given == b"null":
            options: dict[str, Any] = {}
        else:
            options = msgspec.json.decode(given)
        asked = msgspec.json.encode({**options, "include_usage": True})
        return self._member_edit("stream_options", asked)

    def _member_edit(self, name: str, value: bytes) -> tuple[Span, bytes]:
        """Set a member: in its place, or before all others."""
        if name in self.spans:
            return self.spans[name], value
        front = self.body.index(b"{") + 1
        return (front, front), b'"%s":%s,' % (name.encode(), value)


def parse_chat(body: bytes) -> ChatRequest:
    """Read a request body.

    Raises `Problem` (400, or 403 `cost_not_bounded`) saying which field is wrong.
    """
    try:
        spans = {name: (start, end) for name, start, end in scan_object(body)}
        _refuse_unknown(spans)
        facts = chat_facts(
            body,
            spans.get("messages") or _missing("messages"),
            spans.get("tools"),
            spans.get("response_format"),
        )
    except WireError as error:
        raise _problem(error) from error
    if facts.unbounded_parts:
        raise cost_not_bounded("messages", f"content of type {', '.join(facts.unbounded_parts)}")
    values = _Values(body, spans)
    _check_priced_modes(values)
    return ChatRequest(
        body=body,
        spans=spans,
        model=_model(values),
        input_tokens_max=facts.input_tokens_max + _functions_tokens(spans),
        output_tokens_cap=_output_cap(values),
        choices=values.whole_number("n", CHOICES_MAX) or 1,
        streams=values.boolean("stream"),
        wants_usage=_wants_usage(values),
    )


def cost_not_bounded(param: str, what: str) -> Problem:
    """Say that a request cannot be let through because nothing bounds what it costs."""
    return Problem(
        403,
        "cost_not_bounded",
        f"The cost of {what} cannot be bounded before it is sent, so it is not let through.",
        param,
    )


def _problem(error: WireError) -> Problem:
    status = 403 if error.code == "cost_not_bounded" else 400
    return Problem(status, error.code, f"{error.param or 'body'}: {error.message}.", error.param)


def _functions_tokens(spans: dict[str, Span]) -> int:
    """Bound what the older form of tools adds to the input: their definitions by their bytes."""
    if "functions" not in spans:
        return 0
    start, end = spans["functions"]
    return end - start + FUNCTIONS_TOKENS


class _Values:
    """Decodes the small members of a request, with errors that name them."""

    def __init__(self, body: bytes, spans: dict[str, Span]) -> None:
        self._body = body
        self._spans = spans

    def get(self, name: str) -> Any:
        span = self._spans.get(name)
        return None if span is None else msgspec.json.decode(self._body[span[0] : span[1]])

    def whole_number(self, name: str, maximum: int) -> int | None:
        value = self.get(name)
        if value is None:
            return None
        if type(value) is not int or not 1 <= value <= maximum:
            raise invalid_request(
                "invalid_value", f"{name} must be a whole number from 1 to {maximum}.", name
            )
        return value

    def boolean(self, name: str) -> bool:
        value = self.get(name)
        if value is not None and type(value) is not bool:
            raise invalid_request("invalid_value", f"{name} must be true or false.", name)
        return bool(value)


def _refuse_unknown(spans: dict[str, Span]) -> None:
    for name in spans.keys() - NEUTRAL - PRICED:
        if name in UNBOUNDED:
            raise cost_not_bounded(name, f"a request with {name!r}")
        raise invalid_request(
            "unsupported_parameter",
            f"{name[:80]!r} is not supported; its effect on the cost is not known.",
            name[:80],
        )


def _missing(name: str) -> Span:
    raise invalid_request("invalid_value", f"{name} is required.", name)


def _model(values: _Values) -> str:
    model = values.get("model")
    is_name = isinstance(model, str) and 0 < len(model) <= MODEL_NAME_LENGTH_MAX
    # Control characters would end up in records and logs; some databases refuse NUL.
    if not is_name or not model.isprintable():
        raise invalid_request(
            "invalid_value",
            f"model must be a name of 1 to {MODEL_NAME_LENGTH_MAX} printable characters.",
            "model",
        )
    return str(model)


def _output_cap(values: _Values) -> int | None:
    """Take the larger of the two caps: whichever the provider obeys, it is bounded."""
    caps = [
        cap
        for name in ("max_tokens", "max_completion_tokens")
        if (cap := values.whole_number(name, OUTPUT_TOKENS_MAX)) is not None
    ]
    return max(caps, default=None)


def _wants_usage(values: _Values) -> bool:
    options = values.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict) or not values.boolean("stream"):
        raise invalid_request(
            "invalid_value", "stream_options must be an object, with stream true.", "stream_options"
        )
    for name, value in options.items():
        place = f"stream_options.{name[:80]}"
        # `Include_Usage: false` beside our own `include_usage` would have two readings.
        if name not in STREAM_OPTIONS:
            raise invalid_request("unsupported_parameter", f"{place} is not supported.", place)
        if type(value) is not bool:
            raise invalid_request("invalid_value", f"{place} must be true or false.", place)
    return bool(options.get("include_usage"))


def _check_priced_modes(values: _Values) -> None:
    """Let only modes through whose tokens cost what the price sheet says."""
    if values.get("modalities") not in (None, ["text"]):
        raise cost_not_bounded("modalities", "output other than text")
    tier = values.get("service_tier")
    if tier not in (None, "auto", "default"):
        raise cost_not_bounded("service_tier", f"service tier {str(tier)[:40]!r}")


def _splice(body: bytes, edits: list[tuple[Span, bytes]]) -> bytes:
    for (start, end), replacement in sorted(edits, reverse=True):
        body = body[:start] + replacement + body[end:]
    return body
