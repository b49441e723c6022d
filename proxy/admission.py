"""The life of a request, from its head to its answer."""

from __future__ import annotations

from typing import Final

from litestar.types import Receive, Scope, Send

from controlplane.clock import Clock
from core_rs import Admission, Refusal
from proxy.assessment import Assessor, Bound, Question
from proxy.client import Client
from proxy.course import Course
from proxy.errors import Problem, internal
from proxy.relay import Relay
from proxy.running import RunningExchanges
from proxy.serving import Serving
from proxy.settings import ProxySettings
from proxy.settlement import Books, Reservation

ROUTE: Final = "/v1/chat/completions"


class ChatCompletions:
    """Serves `/v1/chat/completions`."""

    def __init__(
        self,
        *,
        books: Books,
        assessor: Assessor,
        serving: Serving,
        clock: Clock,
        settings: ProxySettings,
        running: RunningExchanges,
    ) -> None:
        self._books = books
        self._engine = books.engine
        self._assessor = assessor
        self._serving = serving
        self._clock = clock
        self._relay = Relay(settings, clock, running)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; every way out of here has answered, settled and recorded it."""
        await self._serving.serve(scope, receive, send, self._serve)

    async def _serve(self, client: Client, request_id: bytes) -> None:
        course = self._assessor.begin(client, request_id, ROUTE)
        try:
            reservation = await self._admit(client, course)
        except Exception as error:
            course.problem = error if isinstance(error, Problem) else internal()
            self._books.recorder.put(course.record(self._clock))
            raise
        with reservation:
            await self._relay.forward(client, course, reservation)

    async def _admit(self, client: Client, course: Course) -> Reservation:
        """Hold the request's bound on every limit, or raise why it is refused."""
        question = await self._assessor.read(client, course)
        decision, bound = await self._assessor.decide(course, question, self._reserve)
        if isinstance(decision, Refusal):
            course.refusal = decision
            raise self._assessor.problem(course, question, bound, decision)
        course.admission = decision
        return Reservation(
            self._books,
            course,
            decision,
            self._assessor.sheet,
            question.price,
            question.chat,
            question.deployment,
        )

    def _reserve(self, course: Course, question: Question, bound: Bound) -> Admission | Refusal:
        return self._engine.admit(
            course.principal.key,
            course.request_id,
            bound.spend_nanos,
            bound.tokens,
            question.chat.model,
            question.deployment.provider,
            course.wall_ns,
            course.mono_ns,
        )
