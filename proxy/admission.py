"""The life of a request, from its head to its answer."""

from __future__ import annotations

import asyncio
from typing import Final

from litestar.types import Receive, Scope, Send

from controlplane.clock import Clock, instant
from core_rs import Admission, Ask, Diversion, Refusal, Waiting
from proxy.assessment import Assessor, Decision
from proxy.client import Client, ClientGone
from proxy.confirmations import (
    Confirmation,
    Confirmations,
    confirmation_required,
    read_tokens,
)
from proxy.course import Course, Step
from proxy.enforcement import Outcome
from proxy.errors import Problem, internal
from proxy.fingerprints import body_fingerprint
from proxy.question import Question
from proxy.relay import Relay
from proxy.retry_storms import RetryStorms, retry_storm
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
        confirmations: Confirmations,
    ) -> None:
        self._books = books
        self._enforcer = books.enforcer
        self._assessor = assessor
        self._serving = serving
        self._clock = clock
        self._relay = Relay(settings, clock, running, books.enforcer)
        self._confirmations = confirmations
        self._storms = RetryStorms()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; every way out of here has answered, settled and recorded it."""
        await self._serving.serve(scope, receive, send, self._serve)

    async def _serve(self, client: Client, request_id: bytes) -> None:
        course = self._assessor.begin(client, request_id, ROUTE)
        try:
            question = await self._assessor.read(client, course)
        except Exception as error:
            self._fail(course, error)
            raise
        storm = self._watch_storm(course, question)
        try:
            reservation = await self._admit(client, course, question)
        except BaseException as error:
            self._fail(course, error)
            if storm is not None and not isinstance(error, ClientGone):
                self._storms.failed(*storm, self._clock.mono_ns())
            raise
        await self._run(client, course, reservation, storm)

    async def _run(
        self,
        client: Client,
        course: Course,
        reservation: Reservation,
        storm: tuple[str, bytes] | None,
    ) -> None:
        try:
            with reservation:
                await self._relay.forward(client, course, reservation)
        finally:
            if storm is not None and course.problem is not None:
                self._storms.failed(*storm, self._clock.mono_ns())
            elif storm is not None:
                self._storms.succeeded(*storm)

    def _fail(self, course: Course, error: BaseException) -> None:
        """Put a request on record that was not admitted."""
        if isinstance(error, ClientGone | asyncio.CancelledError):
            course.client_left = isinstance(error, ClientGone)
        else:
            course.problem = error if isinstance(error, Problem) else internal()
        self._books.recorder.put(course.record(self._clock))

    def _watch_storm(self, course: Course, question: Question) -> tuple[str, bytes] | None:
        """Refuse the same request again and again while none succeeds, where a rule says so."""
        most = question.ruling.retry_storm_max
        if most is None:
            return None
        name = (course.principal.key_id, body_fingerprint(question.chat.body))
        retry_after_ns = self._storms.check(*name, most, self._clock.mono_ns())
        if retry_after_ns is not None:
            problem = retry_storm(retry_after_ns)
            self._fail(course, problem)
            raise problem
        return name

    async def _admit(self, client: Client, course: Course, question: Question) -> Reservation:
        """Hold what the request may cost on every limit, or raise why it is refused."""
        taken: dict[str, int] = {}
        # What was asked for before each downgrade, in case the cheaper model does not fit either.
        before: list[tuple[Question, Step]] = []
        has_waited = False
        while True:
            course.deployment = question.deployment
            course.injected_cap = question.injected_cap
            decision, _ = await self._assessor.decide(
                course, question, self._reserve, taken=tuple(taken.items()), may_wait=not has_waited
            )
            if isinstance(decision, Waiting):
                decision = await self._wait(client, course, question, decision)
                # What the cheaper model waited for in vain is not waited for once more.
                has_waited = isinstance(decision, Refusal)
            if isinstance(decision, Admission):
                return self._reservation(course, question, decision)
            if isinstance(decision, Diversion):
                taken[decision.limit_id] = decision.step + 1
                other = self._divert(client, course, question, decision)
                if other is not None:
                    before.append((question, course.steps[-1]))
                    question = other
            elif before:
                question, downgrade = before.pop()
                course.steps.remove(downgrade)
            else:
                course.refusal = decision
                raise self._assessor.problem(course, question, decision)

    def _reserve(self, course: Course, ask: Ask) -> Decision:
        principal = course.principal
        return self._enforcer.admit(principal.key, principal.organization, course.request_id, ask)

    def _reservation(self, course: Course, question: Question, admission: Admission) -> Reservation:
        course.admission = admission
        return Reservation(self._books, course, admission, self._assessor.sheet, question)

    async def _wait(
        self, client: Client, course: Course, question: Question, waiting: Waiting
    ) -> Outcome:
        """Stand in line until there is room, or until the time or the client's patience is up.

        Raises `ClientGone` when nobody waits any more, and `Problem` when key, organization or
        model was switched off meanwhile, or the server stops; nothing is held then.
        """
        if waiting.is_queued:
            course.steps.append(Step(waiting.limit_id, 100, "queue"))
        task = asyncio.current_task()
        assert task is not None
        began_ns = self._clock.mono_ns()
        organization = course.principal.organization
        client.on_gone = lambda: _cancel(task)
        client.watch()
        try:
            outcome = await self._enforcer.wait(organization, course.request_id)
        except asyncio.CancelledError:
            if not client.is_gone:
                raise
            task.uncancel()
            raise ClientGone from None
        finally:
            client.on_gone = None
            course.waited_ns += self._clock.mono_ns() - began_ns
        try:
            self._assessor.begin_again(client, course, question)
        except Problem:
            if isinstance(outcome, Admission):
                self._enforcer.release(organization, course.request_id)
            raise
        return outcome

    def _divert(
        self, client: Client, course: Course, question: Question, diversion: Diversion
    ) -> Question | None:
        """Do what a step of a limit asks for; give what to ask for instead, if anything.

        Raises `Problem` when somebody has to confirm first.
        """
        if diversion.action == "downgrade" and diversion.model is not None:
            other = self._assessor.downgraded(course, question, diversion.model)
            if other is not None:
                course.steps.append(
                    Step(diversion.limit_id, diversion.percent, "downgrade", diversion.model)
                )
            return other
        course.steps.append(Step(diversion.limit_id, diversion.percent, "confirm"))
        self._require_confirmation(client, course, question, diversion)
        return None

    def _require_confirmation(
        self, client: Client, course: Course, question: Question, diversion: Diversion
    ) -> None:
        """Let only pass what its caller has confirmed for this limit.

        Raises `Problem` (403) with a token to send back.
        """
        now_ns = self._clock.wall_ns()
        name = (course.principal.key_id, body_fingerprint(question.chat.body), diversion.limit_id)
        for token in read_tokens(client.headers):
            if self._confirmations.check(token, *name, now_ns) is Confirmation.OK:
                return
        token, expires_at_ns = self._confirmations.make(*name, now_ns)
        limit = {
            "scope": diversion.scope_kind,
            "scope_id": diversion.scope_id,
            "resource": diversion.resource,
            "window": diversion.window,
        }
        raise confirmation_required(limit, diversion.percent, token, instant(expires_at_ns))


def _cancel(task: asyncio.Task[object]) -> None:
    task.cancel()
