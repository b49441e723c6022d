"""What a chat request may cost, and what the engine says to that.

Requests and estimates are read, priced and decided here alike. All in which they differ is the
method of the engine that is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import structlog

from core_rs import Admission, Ask, Diversion, EngineError, Principal, Refusal, Waiting
from proxy.attribution import read_attribution, resolve
from proxy.authentication import Authenticator, check_state
from proxy.calibrations import Calibrations
from proxy.client import Client
from proxy.course import Course
from proxy.errors import Problem, model_not_priced, not_decided, records_behind
from proxy.question import Question
from proxy.refusals import refusal_problem, rule_problem
from proxy.routing import Catalogue, Deployment
from proxy.rulings import Ruling, Rulings
from proxy.settlement import Books
from proxy.wire.openai_chat import ChatRequest, cost_not_bounded, parse_chat

LOG: Final = structlog.get_logger("comptroller.proxy")
# Counting a kilobyte takes about 50 µs: longer texts are counted beside the event loop.
COUNTED_INLINE_BYTES_MAX: Final = 16 * 1024


class Bound(msgspec.Struct, frozen=True, gc=False):
    """The most that a request may use, and cost at its provider in nano units."""

    input_tokens: int
    tokens: int
    cost_nanos: int


Decision = Admission | Refusal | Waiting | Diversion
Decide = Callable[[Course, Ask], Decision]
Taken = Sequence[tuple[str, int]]
"""Limits, and how many of their steps have been passed."""


class Assessor:
    """Finds out what a request asks for, and has it decided."""

    def __init__(
        self,
        *,
        books: Books,
        catalogue: Catalogue,
        authenticator: Authenticator,
        currencies: dict[str, str],
        calibrations: Calibrations,
    ) -> None:
        self._engine = books.engine
        self._recorder = books.recorder
        self._clock = books.clock
        self._authenticator = authenticator
        self._currencies = currencies
        self._calibrations = calibrations
        self._rulings = Rulings(books.engine)
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

    def begin_again(self, client: Client, course: Course, question: Question) -> None:
        """Check a request that has waited from its credentials on, as if it came now.

        Raises `Problem` as `begin` does, or because key, organization or model was switched off.
        """
        principal = self._authenticator.principal(client, self._clock.wall_ns())
        check_state(principal)
        self._currencies[principal.organization_id]
        if not self._recorder.has_room:
            raise records_behind()
        course.principal = principal
        self._check_rules(course, question.deployment)

    async def read(self, client: Client, course: Course) -> Question:
        """Check all that can be checked before the limits are asked.

        Raises `Problem` saying what is wrong with the key, the request, its model or price.
        """
        check_state(course.principal)
        ruling = self._ruling(course.principal)
        course.attribution = read_attribution(client.headers)
        chat = course.chat = parse_chat(await client.body())
        deployment = course.deployment = self._catalogue.route(chat.model)
        course.attribution = resolve(course.attribution, ruling.fixed, ruling.required)
        self._check_rules(course, deployment)
        question = self._question(course, chat, deployment, ruling)
        await self._check_tokens(question)
        return question

    def downgraded(self, course: Course, question: Question, model: str) -> Question | None:
        """Ask for another model instead; None if it is not served, priced or allowed."""
        deployment = self._catalogue.find(model)
        if deployment is None:
            return None
        try:
            self._check_rules(course, deployment)
            return self._question(course, question.chat, deployment, question.ruling)
        except Problem:
            return None

    async def decide(
        self,
        course: Course,
        question: Question,
        decide: Decide,
        *,
        taken: Taken = (),
        may_wait: bool = False,
    ) -> tuple[Decision, Bound]:
        """Ask the engine, and tell on what bound it decided.

        Raises `Problem` (503) when no decision can be made.
        """
        # The body may have taken a while: what counts is the instant of the decision.
        course.wall_ns, course.mono_ns = self._clock.wall_ns(), self._clock.mono_ns()
        try:
            return await self._decide(course, question, decide, taken, may_wait=may_wait)
        except EngineError as error:
            if error.code == "no_exchange_rate":
                raise model_not_priced(question.deployment.model, course.currency) from error
            LOG.warning("not_decided", code=error.code, model=question.chat.model)
            raise not_decided() from error

    def problem(self, course: Course, question: Question, refusal: Refusal) -> Problem:
        """Say why a request is refused, as far as its caller may know."""
        return refusal_problem(refusal, course.currency, question.ruling.refusal_detail)

    async def _decide(
        self,
        course: Course,
        question: Question,
        decide: Decide,
        taken: Taken,
        *,
        may_wait: bool,
    ) -> tuple[Decision, Bound]:
        """Decide on the byte bound; count exactly only when that would refuse or cross a tier."""
        vocabulary = question.deployment.vocabulary
        bound = decision = None
        input_tokens = question.chat.input_tokens_max
        if not (vocabulary and self.sheet.input_tiers_cross(question.price, input_tokens)):
            bound = self._bound(course, question, input_tokens)
            # What would fit by an exact count must not stand in line because of an inexact one.
            waits = may_wait and not vocabulary
            decision = decide(course, self._ask(course, question, bound, taken, may_wait=waits))
        if vocabulary and _counting_may_help(decision):
            counted = await count_input(question.chat, vocabulary)
            bound = self._bound(course, question, counted)
            decision = decide(course, self._ask(course, question, bound, taken, may_wait=may_wait))
        assert decision is not None
        assert bound is not None
        return decision, bound

    def _bound(self, course: Course, question: Question, input_tokens: int) -> Bound:
        choices, output_tokens = question.chat.choices, question.output_tokens
        return Bound(
            input_tokens,
            input_tokens + question.output_tokens_max,
            self.sheet.bound(question.price, input_tokens, output_tokens, choices, course.wall_ns),
        )

    def _ask(
        self, course: Course, question: Question, bound: Bound, taken: Taken, *, may_wait: bool
    ) -> Ask:
        deployment, labels = question.deployment, course.attribution
        return Ask(
            model=deployment.model,
            provider=deployment.provider,
            tier=deployment.tier,
            feature=labels.feature,
            agent=labels.agent,
            end_user=labels.end_user,
            session=labels.session,
            input_tokens=bound.input_tokens,
            output_tokens_max=question.output_tokens_max,
            choices=question.chat.choices,
            bound_nanos=bound.cost_nanos,
            input_nanos=self.sheet.bound(
                question.price, bound.input_tokens, 0, question.chat.choices, course.wall_ns
            ),
            output_picos=self.sheet.output_picos(
                question.price, bound.input_tokens, course.wall_ns
            ),
            step_tokens=question.step_tokens,
            calibration=self._calibrations.of(deployment),
            streams=question.streams,
            may_wait=may_wait,
            taken=[*taken] if taken else None,
        )

    def _ruling(self, principal: Principal) -> Ruling:
        try:
            return self._rulings.of(principal)
        except EngineError as error:
            raise not_decided() from error

    def _check_rules(self, course: Course, deployment: Deployment) -> None:
        labels = course.attribution
        refused = self._engine.refused_by_rule(
            course.principal.key,
            model=deployment.model,
            provider=deployment.provider,
            endpoint=course.route,
            request_class=labels.request_class or "interactive",
            tier=deployment.tier,
            feature=labels.feature,
        )
        if refused is not None:
            raise rule_problem(*refused, deployment.model, labels)

    def _question(
        self, course: Course, chat: ChatRequest, deployment: Deployment, ruling: Ruling
    ) -> Question:
        if deployment.price is None:
            raise model_not_priced(deployment.model, course.currency)
        injected = None if chat.output_tokens_cap else ruling.output_tokens_default
        output_tokens = self._output_tokens_max(
            chat.output_tokens_cap or injected, deployment, deployment.price
        )
        return Question(chat, deployment, deployment.price, output_tokens, ruling, injected)

    async def _check_tokens(self, question: Question) -> None:
        """Refuse what may use more tokens than one request may."""
        most, vocabulary = question.ruling.tokens_per_request_max, question.deployment.vocabulary
        if most is None:
            return
        tokens = question.chat.input_tokens_max + question.output_tokens_max
        if tokens > most and vocabulary:
            counted = await count_input(question.chat, vocabulary)
            tokens = counted + question.output_tokens_max
        if tokens > most:
            raise Problem(
                403,
                "tokens_per_request_exceeded",
                f"The request may use {tokens} tokens, input and answers together; one request "
                f"may use at most {most}. Shorten it, or lower max_tokens.",
                "max_tokens",
            )

    def _output_tokens_max(self, cap: int | None, deployment: Deployment, price: int) -> int:
        known = (cap, deployment.output_tokens_max, self.sheet.context_window(price))
        bounds = [each for each in known[:2] if each is not None]
        if bounds:
            return min(bounds)
        if known[2] is None:
            raise cost_not_bounded("max_tokens", "a request without max_tokens to this model")
        return known[2]


def _counting_may_help(decision: Decision | None) -> bool:
    """Say whether an exact count could change the decision: not for requests or breakers."""
    if decision is None:
        return True
    if isinstance(decision, Refusal):
        return decision.resource in {"spend", "tokens"} and decision.mode == "hard"
    return isinstance(decision, Waiting)


async def count_input(chat: ChatRequest, vocabulary: str) -> int:
    """Count the input's tokens, never below what is billed; beside the loop where that is slow."""
    if len(chat.body) <= COUNTED_INLINE_BYTES_MAX:
        return chat.input_tokens_counted(vocabulary)
    return await asyncio.to_thread(chat.input_tokens_counted, vocabulary)
