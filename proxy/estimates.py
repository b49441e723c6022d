"""`/v1/comptroller/estimate`: whether a request would pass now, and what it could cost.

Nothing is reserved, recorded or sent to a provider, and no counter moves.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar.types import Receive, Scope, Send

from controlplane.money import format_money
from core_rs import Ask, Diversion, Engine, Refusal, Usage
from proxy.assessment import Assessor, Bound, Decision, count_input
from proxy.client import Client
from proxy.course import Course, Step
from proxy.errors import Problem
from proxy.question import Question
from proxy.serving import Serving, answer_json, policy_header

ROUTE: Final = "/v1/comptroller/estimate"
# About 13 ms of counting. Estimates cost their callers nothing, so longer inputs are counted only
# where the decision depends on it.
COUNTED_BYTES_MAX: Final = 256 * 1024


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate as it is answered; amounts are decimal strings in `currency`.

    `input_tokens` and `cost_input` are None where the input was not counted.
    """

    object: str = "comptroller.estimate"
    allowed: bool
    model: str
    served_model: str
    provider: str
    currency: str
    input_tokens_max: int
    output_tokens_max: int
    cost_max: str
    input_tokens: int | None
    cost_input: str | None
    over_limit_steps: list[Step]
    refusal: dict[str, Any] | None


class Estimates:
    """Answers what `/v1/chat/completions` would decide about the same body."""

    def __init__(self, *, engine: Engine, assessor: Assessor, serving: Serving) -> None:
        self._engine = engine
        self._assessor = assessor
        self._serving = serving

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._serving.serve(scope, receive, send, self._answer)

    async def _answer(self, client: Client, request_id: bytes) -> None:
        course = self._assessor.begin(client, request_id, ROUTE)
        question = await self._assessor.read(client, course)
        question, decision, bound = await self._decide(course, question)
        refused = None
        if isinstance(decision, Refusal):
            refused = self._assessor.problem(course, question, decision)
            if decision.limit_id is None:
                # The key or its organization was switched off while the body arrived.
                raise refused
        estimate = await self._estimate(course, question, bound, refused)
        header = policy_header(course.principal.policy_version)
        await answer_json(client, request_id, msgspec.json.encode(estimate), [header])

    async def _decide(self, course: Course, question: Question) -> tuple[Question, Decision, Bound]:
        """Decide with what limits would do: serve by another model, or have it confirmed."""
        taken: dict[str, int] = {}
        before: list[tuple[Question, Step]] = []
        while True:
            decision, bound = await self._assessor.decide(
                course, question, self._preview, taken=tuple(taken.items())
            )
            if isinstance(decision, Refusal) and before:
                question, downgrade = before.pop()
                course.steps.remove(downgrade)
                continue
            if not isinstance(decision, Diversion):
                return question, decision, bound
            taken[decision.limit_id] = decision.step + 1
            step = Step(decision.limit_id, decision.percent, decision.action, decision.model)
            if decision.model is not None:
                other = self._assessor.downgraded(course, question, decision.model)
                if other is None:
                    continue
                before.append((question, step))
                question = other
            course.steps.append(step)

    def _preview(self, course: Course, ask: Ask) -> Decision:
        return self._engine.preview(course.principal.key, ask, course.wall_ns, course.mono_ns)

    async def _estimate(
        self, course: Course, question: Question, bound: Bound, refused: Problem | None
    ) -> Estimate:
        input_tokens = await _counted(question, bound)
        return Estimate(
            allowed=refused is None,
            model=question.chat.model,
            served_model=question.deployment.upstream_model,
            provider=question.deployment.provider,
            currency=course.currency,
            input_tokens_max=bound.input_tokens,
            output_tokens_max=bound.tokens - bound.input_tokens,
            cost_max=format_money(self._charge(course, bound.cost_nanos)),
            input_tokens=input_tokens,
            cost_input=self._input_cost(course, question, input_tokens),
            over_limit_steps=course.steps,
            refusal=None if refused is None else {"status": refused.status, **refused.error()},
        )

    def _input_cost(
        self, course: Course, question: Question, input_tokens: int | None
    ) -> str | None:
        if input_tokens is None:
            return None
        usage = Usage(input_tokens=input_tokens)
        cost_nanos = self._assessor.sheet.cost(question.price, usage, course.wall_ns)
        return format_money(self._charge(course, cost_nanos))

    def _charge(self, course: Course, cost_nanos: int) -> int:
        return self._engine.charge(course.principal.key, cost_nanos, course.wall_ns)


async def _counted(question: Question, bound: Bound) -> int | None:
    """Count the input where its vocabulary is known and it is not too long, or was counted."""
    vocabulary, chat = question.deployment.vocabulary, question.chat
    if vocabulary is None:
        return None
    if bound.input_tokens < chat.input_tokens_max:
        return bound.input_tokens
    if len(chat.body) > COUNTED_BYTES_MAX:
        return None
    return await count_input(chat, vocabulary)
