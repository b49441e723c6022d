"""What a chat request may cost, and what the engine says to that.

Requests and estimates are read, priced and decided here alike. All in which they differ is the
method of the engine that is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from core_rs import Admission, EngineError, Principal, Refusal
from proxy.attribution import read_attribution
from proxy.authentication import Authenticator, check_state
from proxy.client import Client
from proxy.course import Course
from proxy.errors import Problem, not_decided, records_behind
from proxy.refusals import refusal_problem
from proxy.routing import Catalogue, Deployment
from proxy.settlement import Books
from proxy.wire.openai_chat import ChatRequest, cost_not_bounded, parse_chat

LOG: Final = structlog.get_logger("comptroller.proxy")
# Counting a kilobyte takes about 50 µs: longer texts are counted beside the event loop.
COUNTED_INLINE_BYTES_MAX: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Question:
    """A chat request that can be priced; `output_tokens` bounds each of its choices."""

    chat: ChatRequest
    deployment: Deployment
    price: int
    output_tokens: int


class Bound(msgspec.Struct, frozen=True, gc=False):
    """The most that a request may use and cost, in tokens and nano units."""

    input_tokens: int
    tokens: int
    spend_nanos: int


Ask = Callable[[Course, Question, Bound], Admission | Refusal]


class Assessor:
    """Finds out what a request asks for, and has it decided."""

    def __init__(
        self,
        *,
        books: Books,
        catalogue: Catalogue,
        authenticator: Authenticator,
        currencies: dict[str, str],
    ) -> None:
        self._engine = books.engine
        self._recorder = books.recorder
        self._clock = books.clock
        self._authenticator = authenticator
        self._currencies = currencies
        self.sheet = catalogue.sheet
        self._catalogue = catalogue

    def begin(self, client: Client, request_id: bytes, route: str) -> Course:
        """Find out from its head whose request it is.

        Raises `Problem`: 400, 401 or 413, or 503 while decisions cannot be recorded or made.
        """
        wall_ns, mono_ns = self._clock.wall_ns(), self._clock.mono_ns()
        principal = self._authenticator.principal(client, wall_ns)
        if not self._recorder.has_room:
            # What is refused here is not recorded either: that is why it is refused.
            raise records_behind()
        return Course(
            request_id=request_id,
            route=route,
            principal=principal,
            currency=self._currencies[principal.organization_id],
            price_version=self.sheet.version,
            wall_ns=wall_ns,
            mono_ns=mono_ns,
        )

    async def read(self, client: Client, course: Course) -> Question:
        """Check all that can be checked before the limits are asked.

        Raises `Problem` saying what is wrong with the key, the request, its model or price.
        """
        check_state(course.principal)
        course.attribution = read_attribution(client.headers)
        chat = course.chat = parse_chat(await client.body())
        deployment = course.deployment = self._catalogue.route(chat.model)
        self._check_model(course.principal, chat)
        price = self._price(deployment, course.currency)
        return Question(chat, deployment, price, self._output_tokens_max(chat, deployment, price))

    async def decide(
        self, course: Course, question: Question, ask: Ask
    ) -> tuple[Admission | Refusal, Bound]:
        """Ask the engine, and tell on what bound it decided.

        Raises `Problem` (503) when no decision can be made.
        """
        # The body may have taken a while: what counts is the instant of the decision.
        course.wall_ns, course.mono_ns = self._clock.wall_ns(), self._clock.mono_ns()
        try:
            return await self._decide(course, question, ask)
        except EngineError as error:
            LOG.warning("not_decided", code=error.code, model=question.chat.model)
            raise not_decided() from error

    def problem(
        self, course: Course, question: Question, bound: Bound, refusal: Refusal
    ) -> Problem:
        """Say why a request is refused, and how long an answer would still fit."""
        fitting = self._output_tokens_that_fit(course, question, bound, refusal)
        return refusal_problem(refusal, course.currency, fitting)

    async def _decide(
        self, course: Course, question: Question, ask: Ask
    ) -> tuple[Admission | Refusal, Bound]:
        """Decide on the byte bound; count exactly only when that would refuse or cross a tier."""
        vocabulary = question.deployment.vocabulary
        bound = decision = None
        input_tokens = question.chat.input_tokens_max
        if not (vocabulary and self.sheet.input_tiers_cross(question.price, input_tokens)):
            bound = self._bound(course, question, input_tokens)
            decision = ask(course, question, bound)
        if vocabulary and _counting_may_help(decision):
            counted = await count_input(question.chat, vocabulary)
            bound = self._bound(course, question, counted)
            decision = ask(course, question, bound)
        assert decision is not None
        assert bound is not None
        return decision, bound

    def _bound(self, course: Course, question: Question, input_tokens: int) -> Bound:
        choices, output_tokens = question.chat.choices, question.output_tokens
        return Bound(
            input_tokens,
            input_tokens + choices * output_tokens,
            self.sheet.bound(question.price, input_tokens, output_tokens, choices, course.wall_ns),
        )

    def _check_model(self, principal: Principal, chat: ChatRequest) -> None:
        scope = self._engine.model_refused_by(principal.key, chat.model)
        if scope is not None:
            raise Problem(
                403,
                "model_not_allowed",
                f"The model {chat.model!r} is not on the list of models this {scope} may use.",
                "model",
            )

    def _price(self, deployment: Deployment, currency: str) -> int:
        """Find the price; without one in the organization's currency nothing may be served."""
        if deployment.price is None or currency != self.sheet.currency:
            raise Problem(
                403,
                "model_not_priced",
                f"There is no price in {currency} for the model {deployment.model!r}.",
                "model",
            )
        return deployment.price

    def _output_tokens_max(self, chat: ChatRequest, deployment: Deployment, price: int) -> int:
        known = (
            chat.output_tokens_cap,
            deployment.output_tokens_max,
            self.sheet.context_window(price),
        )
        bounds = [each for each in known[:2] if each is not None]
        if bounds:
            return min(bounds)
        if known[2] is None:
            raise cost_not_bounded("max_tokens", "a request without max_tokens to this model")
        return known[2]

    def _output_tokens_that_fit(
        self, course: Course, question: Question, bound: Bound, refusal: Refusal
    ) -> int | None:
        """Tell how long an answer would still fit a hard limit on spend."""
        if refusal.resource != "spend" or refusal.mode != "hard":
            return None
        room_nanos = (refusal.cap or 0) - (refusal.used or 0) - (refusal.held or 0)
        if room_nanos <= 0:
            return 0
        return (
            self.sheet.output_tokens_within(
                question.price,
                room_nanos,
                bound.input_tokens,
                question.chat.choices,
                course.wall_ns,
            )
            or 0
        )


def _counting_may_help(decision: Admission | Refusal | None) -> bool:
    """Say whether an exact count could change the decision: not for requests or breakers."""
    if decision is None:
        return True
    if isinstance(decision, Admission):
        return False
    return decision.resource != "requests" and decision.mode == "hard"


async def count_input(chat: ChatRequest, vocabulary: str) -> int:
    """Count the input's tokens, never below what is billed; beside the loop where that is slow."""
    if len(chat.body) <= COUNTED_INLINE_BYTES_MAX:
        return chat.input_tokens_counted(vocabulary)
    return await asyncio.to_thread(chat.input_tokens_counted, vocabulary)
