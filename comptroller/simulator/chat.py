"""One chat completion: what is accepted, what is billed, and which fault spoils it."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from comptroller.simulator.answers import ChatShapes, error_body, usage
from comptroller.simulator.billing import Bill, Line
from comptroller.simulator.exchange import Exchange
from comptroller.simulator.faults import STATUS_OF, Fault, FaultRule, FaultRules
from comptroller.simulator.generation import Choice, plan_choices
from comptroller.simulator.lengths import Fixed, OutputLength
from comptroller.simulator.models import Catalogue, Model
from comptroller.simulator.requests import BadRequest, ChatRequest, read_chat_request
from comptroller.simulator.settings import SimulatorSettings
from comptroller.simulator.tokens import count_prompt
from comptroller.simulator.words import single_token_words, wide_words

T = TypeVar("T")
ABSURD_TOKENS = 10**15
IMPOSSIBLE_TOKENS = 10**6
# What real providers tell the holder of an account, and a proxy must keep to itself.
ACCOUNT_HEADERS = {
    "set-cookie": "__cf_bm=simulator; HttpOnly",
    "openai-organization": "org-simulator",
    "x-ratelimit-remaining-requests": "4999",
}
ERROR_PAGE = b"<html><body>the simulator's front door is broken</body></html>"
REQUEST_ID_CHARS_MAX = 256
# Faults that answer without generating anything; billed only where the rule says so.
REFUSALS = frozenset({*STATUS_OF, Fault.STATUS, Fault.RESET_BEFORE_HEAD})


@dataclass(slots=True)
class Job:
    """Everything that is known about one answer once its request is accepted.

    In the first `reasoning_rounds` steps nothing is shown; they are as many for every choice.
    """

    exchange: Exchange
    request: ChatRequest
    choices: tuple[Choice, ...]
    shapes: ChatShapes
    bill: Bill
    line: Line
    settings: SimulatorSettings
    pace: int
    reasoning_pace: int
    overbill: int
    latency_ms: int
    rule: FaultRule | None
    reasoning_rounds: int = 0
    reasoning_tokens: int = 0

    @property
    def rounds(self) -> int:
        """Steps of generation: each gives every choice that is not finished its next piece."""
        return max(len(choice.pieces) for choice in self.choices)

    def pace_of(self, round_: int) -> int:
        """Tokens a second of each choice in a step; 0: as fast as possible."""
        return self.reasoning_pace if round_ < self.reasoning_rounds else self.pace

    def due_s(self, rounds: int) -> float:
        """Seconds from the start until so many steps are to be done."""
        reasoning = min(rounds, self.reasoning_rounds)
        reasoning_s = reasoning / self.reasoning_pace if self.reasoning_pace else 0.0
        return reasoning_s + ((rounds - reasoning) / self.pace if self.pace else 0.0)

    def has(self, *faults: Fault) -> bool:
        """Whether this answer is spoiled in one of these ways."""
        return self.rule is not None and self.rule.fault in faults

    def generate(self, first: int, end: int) -> None:
        """Book the pieces of rounds `first` to `end`, the last not included."""
        pieces = [piece for choice in self.choices for piece in choice.pieces[first:end]]
        if first < self.reasoning_rounds:
            self.reasoning_tokens += sum(piece.tokens for piece in pieces if piece.is_hidden)
        tokens = sum(piece.tokens for piece in pieces)
        self.bill.generated(self.line, tokens * self.overbill)

    def usage(self) -> dict[str, Any] | None:
        """Write the usage that the answer shows; only the bill is always true."""
        prompt_tokens, completion_tokens = self.line.prompt_tokens, self.line.completion_tokens
        shown_tokens = None if self.rule is None else self.rule.tokens
        if self.has(Fault.MISSING_USAGE):
            return None
        if self.has(Fault.NEGATIVE_USAGE):
            return usage(-1, -1)
        if self.has(Fault.ABSURD_USAGE):
            return usage(prompt_tokens, shown_tokens or ABSURD_TOKENS)
        if self.has(Fault.IMPOSSIBLE_USAGE):
            return usage(shown_tokens or IMPOSSIBLE_TOKENS, completion_tokens)
        if self.has(Fault.STRING_USAGE):
            return {"prompt_tokens": str(prompt_tokens), "completion_tokens": "many"}
        return usage(prompt_tokens, completion_tokens, self.reasoning_tokens)

    def answer_headers(self, content_type: str) -> dict[str, str]:
        """Write the headers of the answer."""
        if self.has(Fault.WRONG_CONTENT_TYPE):
            content_type = "text/html; charset=utf-8"
        return {
            "content-type": content_type,
            "x-request-id": self.shapes.completion_id,
            "openai-processing-ms": "1",
            **(ACCOUNT_HEADERS if self.has(Fault.ACCOUNT_HEADERS) else {}),
        }


class ChatCompletions:
    """Accept chat requests and turn each into a job.

    Raises RuntimeError when made with a tokenizer that its words do not fit.
    """

    def __init__(
        self,
        settings: SimulatorSettings,
        bill: Bill,
        rules: FaultRules,
        wall_now: Callable[[], datetime],
    ) -> None:
        self.catalogue = Catalogue(settings.models)
        self._settings = settings
        self._bill = bill
        self._rules = rules
        self._wall_now = wall_now
        self.words = single_token_words()
        self._wide_words = wide_words()
        self._accepted = 0

    async def accept(self, exchange: Exchange) -> Job | None:
        """Check a request and put its prompt on the bill; the job's `bill` is to be closed.

        None: it has been answered, by a fault that bills nothing. Raises BadRequest.
        """
        request = read_chat_request(exchange.request.body)
        model = self._model(request)
        rule = request.directives.fault or self._rules.take(model.name)
        if rule is not None:
            exchange.outcome.fate = f"fault:{rule.fault}"
        if rule is not None and rule.fault in REFUSALS and not rule.billed:
            await refuse_by_fault(exchange, rule)
            return None
        return self._job(exchange, request, model, rule)

    def _model(self, request: ChatRequest) -> Model:
        model = self.catalogue.find(request.model)
        if model is None:
            message = f"The model `{request.model}` does not exist."
            raise BadRequest(message, code="model_not_found", param="model", status=404)
        if (request.output_tokens_max or 0) > model.output_tokens_max:
            message = f"max_tokens is too large: this model writes {model.output_tokens_max}."
            raise BadRequest(message, code="invalid_value", param="max_tokens")
        return model

    def _job(
        self, exchange: Exchange, request: ChatRequest, model: Model, rule: FaultRule | None
    ) -> Job:
        prompt_tokens = count_prompt(request, model.vocabulary)
        if prompt_tokens > model.context_tokens_max:
            message = f"This model reads at most {model.context_tokens_max} tokens."
            raise BadRequest(message, code="context_length_exceeded", param="messages")
        self._accepted += 1
        shapes = ChatShapes(
            completion_id=f"chatcmpl-{_identifier(self._accepted)}",
            model=model.name,
            created_s=int(self._wall_now().timestamp()),
            include_usage=request.include_usage,
        )
        asked, settings = request.directives, self._settings
        pace = _given(asked.pace, settings.pace)
        reasoning_pace = _given(asked.reasoning_pace, settings.reasoning_pace)
        choices = self._planned(request, model, rule)
        return Job(
            exchange,
            request,
            choices,
            shapes,
            self._bill,
            self._bill.open(model, _request_id(exchange), prompt_tokens),
            settings,
            pace=pace,
            reasoning_pace=_given(reasoning_pace, pace),
            overbill=_given(asked.overbill, settings.overbill),
            latency_ms=self._latency_ms(request, rule),
            rule=rule,
            reasoning_rounds=sum(piece.is_hidden for piece in choices[0].pieces),
        )

    def _planned(
        self, request: ChatRequest, model: Model, rule: FaultRule | None
    ) -> tuple[Choice, ...]:
        """Plan the answer; one that exceeds its maximum is as long as that many times it."""
        asked, settings = request.directives, self._settings
        length: OutputLength = _given(asked.output, settings.output)
        exceed = _given(asked.exceed, settings.exceed)
        maximum = request.output_tokens_max
        if rule is not None and rule.fault is Fault.IGNORED_CAP:
            maximum = None
        elif maximum is not None and exceed > 1:
            maximum *= exceed
            length = Fixed(maximum)
            model = replace(model, output_tokens_max=maximum)
        return plan_choices(
            msgspec.structs.replace(request, output_tokens_max=maximum),
            model,
            words=self._vocabulary(rule),
            length=length,
            seed=self._seed(request),
            reasoning=_given(asked.reasoning, settings.reasoning),
        )

    def _seed(self, request: ChatRequest) -> str:
        if request.seed is not None:
            return f"{self._settings.seed}/seed/{request.seed}"
        return f"{self._settings.seed}/request/{self._accepted}"

    def _vocabulary(self, rule: FaultRule | None) -> Sequence[str]:
        is_wide = rule is not None and rule.fault is Fault.SPLIT_UTF8
        return self._wide_words if is_wide else self.words

    def _latency_ms(self, request: ChatRequest, rule: FaultRule | None) -> int:
        latency_ms = _given(request.directives.latency_ms, self._settings.latency_ms)
        is_slow = rule is not None and rule.fault is Fault.LATENCY
        return latency_ms + (rule.delay_ms if rule is not None and is_slow else 0)


async def refuse_by_fault(exchange: Exchange, rule: FaultRule) -> None:
    """Answer with an error status or a redirect, or reset before the first byte."""
    if rule.fault is Fault.RESET_BEFORE_HEAD:
        await exchange.reset()
        return
    status = STATUS_OF.get(rule.fault, rule.status)
    headers = {"location": rule.location} if rule.fault is Fault.REDIRECT else {}
    retry_after_s = rule.retry_after_s
    if retry_after_s is None and rule.fault is Fault.RATE_LIMITED:
        retry_after_s = 1
    if retry_after_s is not None:
        headers["retry-after"] = str(retry_after_s)
    body = error_body(status, f"The simulator was asked for the fault {rule.fault}.", rule.fault)
    if rule.html:
        body, headers["content-type"] = ERROR_PAGE, "text/html"
    await exchange.answer(status, body, headers, gzip=rule.gzip)


def _given(asked: T | None, otherwise: T) -> T:
    return otherwise if asked is None else asked


def _request_id(exchange: Exchange) -> str | None:
    found = exchange.request.header("x-client-request-id")
    return None if found is None else found[:REQUEST_ID_CHARS_MAX]


def _identifier(number: int) -> str:
    """Write a number like the identifiers of the real API, which clients must not parse."""
    return base64.b32encode(number.to_bytes(10, "big")).decode().lower()
