"""The life of a request, from its head to its answer."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from litestar.types import Receive, Scope, Send

from controlplane.clock import Clock
from controlplane.ids import IdSource
from core_rs import Admission, EngineError, Principal, Refusal
from proxy.attribution import read_attribution
from proxy.authentication import Authenticator, check_state
from proxy.client import Client, ClientGone
from proxy.course import Course
from proxy.errors import Problem, internal, not_decided, records_behind
from proxy.refusals import refusal_problem
from proxy.relay import Relay
from proxy.routing import Catalogue, Deployment
from proxy.running import RunningExchanges
from proxy.settings import ProxySettings
from proxy.settlement import Books, Reservation
from proxy.timeouts import Timeouts
from proxy.wire.openai_chat import ChatRequest, cost_not_bounded, parse_chat

LOG: Final = structlog.get_logger("comptroller.proxy")
# Counting a kilobyte takes about 50 µs: longer texts are counted beside the event loop.
COUNTED_INLINE_BYTES_MAX: Final = 16 * 1024


class ChatCompletions:
    """Serves `/v1/chat/completions`."""

    def __init__(
        self,
        *,
        books: Books,
        catalogue: Catalogue,
        authenticator: Authenticator,
        currencies: dict[str, str],
        ids: IdSource,
        clock: Clock,
        settings: ProxySettings,
        timeouts: Timeouts,
        running: RunningExchanges,
    ) -> None:
        self._books = books
        self._engine = books.engine
        self._catalogue = catalogue
        self._authenticator = authenticator
        self._currencies = currencies
        self._ids = ids
        self._clock = clock
        self._settings = settings
        self._timeouts = timeouts
        self._relay = Relay(settings, clock, running)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; every way out of here has answered, settled and recorded it."""
        client = Client(scope, receive, send, self._settings, self._timeouts)
        request_id = self._ids.new_bytes()
        header_id = b"req_" + request_id.hex().encode()
        try:
            await self._serve(client, request_id)
        except Problem as problem:
            await client.fail(problem, header_id)
        except ClientGone:
            pass
        except Exception:
            LOG.exception("request_failed", request_id=header_id.decode())
            await client.fail_internally(header_id)
        finally:
            client.close()

    async def _serve(self, client: Client, request_id: bytes) -> None:
        wall_ns, mono_ns = self._clock.wall_ns(), self._clock.mono_ns()
        principal = self._authenticator.principal(client, wall_ns)
        if not self._books.recorder.has_room:
            # What is refused here is not recorded either: that is why it is refused.
            raise records_behind()
        course = Course(
            request_id=request_id,
            route="/v1/chat/completions",
            principal=principal,
            currency=self._currencies[principal.organization_id],
            price_version=self._catalogue.sheet.version,
            wall_ns=wall_ns,
            mono_ns=mono_ns,
        )
        try:
            reservation = await self._admit(client, course)
        except Exception as error:
            course.problem = error if isinstance(error, Problem) else internal()
            self._books.recorder.put(course.record(self._clock))
            raise
        with reservation:
            await self._relay.forward(client, course, reservation)

    async def _admit(self, client: Client, course: Course) -> Reservation:
        """Check all that can be checked, then hold the request's bound on every limit."""
        check_state(course.principal)
        course.attribution = read_attribution(client.headers)
        chat = course.chat = parse_chat(await client.body())
        deployment = course.deployment = self._catalogue.route(chat.model)
        self._check_model(course.principal, chat)
        price = _price(deployment, course.currency, self._catalogue)
        output_tokens = self._output_tokens_max(chat, deployment, price)
        # The body may have taken a while: what counts is the instant of the decision.
        course.wall_ns, course.mono_ns = self._clock.wall_ns(), self._clock.mono_ns()
        try:
            decision = await self._reserve(course, chat, deployment, price, output_tokens)
        except EngineError as error:
            LOG.warning("not_decided", code=error.code, model=chat.model)
            raise not_decided() from error
        return Reservation(
            self._books, course, decision, self._catalogue.sheet, price, chat, deployment
        )

    async def _reserve(
        self,
        course: Course,
        chat: ChatRequest,
        deployment: Deployment,
        price: int,
        output_tokens: int,
    ) -> Admission:
        """Reserve on the byte bound; count exactly only when that would refuse or cross a tier."""
        input_tokens = chat.input_tokens_max
        sheet = self._catalogue.sheet
        decision: Admission | Refusal | None = None
        if not (deployment.vocabulary and sheet.input_tiers_cross(price, input_tokens)):
            decision = self._decide(course, price, input_tokens, output_tokens)
        if deployment.vocabulary and _counting_may_help(decision):
            input_tokens = await _counted(chat, deployment.vocabulary)
            decision = self._decide(course, price, input_tokens, output_tokens)
        if isinstance(decision, Admission):
            course.admission = decision
            return decision
        assert decision is not None
        course.refusal = decision
        fitting = self._output_tokens_that_fit(course, decision, price, input_tokens)
        raise refusal_problem(decision, course.principal, course.currency, fitting)

    def _decide(
        self, course: Course, price: int, input_tokens: int, output_tokens: int
    ) -> Admission | Refusal:
        chat, deployment = course.chat, course.deployment
        assert chat is not None
        assert deployment is not None
        bound_nanos = self._catalogue.sheet.bound(
            price, input_tokens, output_tokens, chat.choices, course.wall_ns
        )
        return self._engine.admit(
            course.principal.key,
            course.request_id,
            bound_nanos,
            input_tokens + chat.choices * output_tokens,
            chat.model,
            deployment.provider,
            course.wall_ns,
            course.mono_ns,
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

    def _output_tokens_max(self, chat: ChatRequest, deployment: Deployment, price: int) -> int:
        known = (
            chat.output_tokens_cap,
            deployment.output_tokens_max,
            self._catalogue.sheet.context_window(price),
        )
        bounds = [each for each in known[:2] if each is not None]
        if bounds:
            return min(bounds)
        if known[2] is None:
            raise cost_not_bounded("max_tokens", "a request without max_tokens to this model")
        return known[2]

    def _output_tokens_that_fit(
        self, course: Course, refusal: Refusal, price: int, input_tokens: int
    ) -> int | None:
        """Tell how long an answer would still fit, for limits whose figures the caller may see."""
        chat = course.chat
        if refusal.resource != "spend" or refusal.mode != "hard" or chat is None:
            return None
        room_nanos = (refusal.cap or 0) - (refusal.used or 0) - (refusal.held or 0)
        if room_nanos <= 0:
            return 0
        return (
            self._catalogue.sheet.output_tokens_within(
                price, room_nanos, input_tokens, chat.choices, course.wall_ns
            )
            or 0
        )


def _price(deployment: Deployment, currency: str, catalogue: Catalogue) -> int:
    """Find the price; without one in the organization's currency nothing may be served."""
    if deployment.price is None or currency != catalogue.sheet.currency:
        raise Problem(
            403,
            "model_not_priced",
            f"There is no price in {currency} for the model {deployment.model!r}.",
            "model",
        )
    return deployment.price


def _counting_may_help(decision: Admission | Refusal | None) -> bool:
    """Say whether an exact count could change the decision: not for requests or breakers."""
    if decision is None:
        return True
    if isinstance(decision, Admission):
        return False
    return decision.resource != "requests" and decision.mode == "hard"


async def _counted(chat: ChatRequest, vocabulary: str) -> int:
    if len(chat.body) <= COUNTED_INLINE_BYTES_MAX:
        return chat.input_tokens_counted(vocabulary)
    return await asyncio.to_thread(chat.input_tokens_counted, vocabulary)
