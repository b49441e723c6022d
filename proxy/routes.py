"""What the proxy exports: its routes, and how it starts and stops."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from litestar import asgi
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send

from controlplane.calibrations.queries import load_calibrations
from controlplane.clock import Clock
from controlplane.db import Database
from controlplane.events import Events
from controlplane.ids import IdSource
from controlplane.ledger.recorder import Recorder
from controlplane.ledger.records import BreakerEvent
from controlplane.settings import ControlSettings
from core_rs import Effect, Engine, warm_vocabularies
from proxy.admission import ChatCompletions
from proxy.assessment import Assessor
from proxy.authentication import Authenticator
from proxy.calibrations import Calibrations
from proxy.client import Client
from proxy.confirmations import Confirmations
from proxy.enforcement import Enforcer
from proxy.errors import Problem
from proxy.estimates import Estimates
from proxy.limits import Limits
from proxy.models import Models
from proxy.policy_feed import PolicyFeed
from proxy.routing import Catalogue
from proxy.running import RunningExchanges
from proxy.serving import Serving
from proxy.settings import ProxySettings
from proxy.settlement import Books
from proxy.timeouts import Timeouts

# How long a request that is ended may take to tell its caller.
LAST_WORDS_S = 5.0
Handle = Callable[[Scope, Receive, Send], Awaitable[None]]


class Proxy:
    """The proxy plane of one process."""

    def __init__(
        self,
        *,
        engine: Engine,
        catalogue: Catalogue,
        recorder: Recorder,
        database: Database,
        events: Events,
        clock: Clock,
        ids: IdSource,
        pepper: bytes,
        settings: ProxySettings,
        control_settings: ControlSettings,
    ) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._running = RunningExchanges()
        self._feed = PolicyFeed(engine, database, recorder, clock, control_settings)
        self._events = events
        self._serving = serving = Serving(ids, settings, Timeouts())
        authenticator = Authenticator(engine, pepper)
        currencies = self._feed.currencies
        self._calibrations = Calibrations()
        self._database = database
        self._recorder = recorder
        self._enforcer = Enforcer(engine, clock, self._tell_breaker)
        self._feed.on_loaded = self._enforcer.policy_changed
        books = Books(self._enforcer, recorder, clock, self._calibrations)
        assessor = Assessor(
            books=books,
            catalogue=catalogue,
            authenticator=authenticator,
            currencies=currencies,
            calibrations=self._calibrations,
        )
        self._chat = ChatCompletions(
            books=books,
            assessor=assessor,
            serving=serving,
            clock=clock,
            settings=settings,
            running=self._running,
            confirmations=Confirmations(pepper, clock.wall_ns()),
        )
        self._models = Models(
            engine=engine,
            catalogue=catalogue,
            authenticator=authenticator,
            serving=serving,
            clock=clock,
        )
        self._estimates = Estimates(engine=engine, assessor=assessor, serving=serving)
        self._limits = Limits(
            engine=engine,
            authenticator=authenticator,
            currencies=currencies,
            serving=serving,
            clock=clock,
        )

    def routes(self) -> list[ASGIRouteHandler]:
        """List the routes of `/v1`."""
        return [
            self._route("/v1/chat/completions", "POST", self._chat.handle),
            self._route("/v1/models", "GET", self._models.handle),
            self._route("/v1/comptroller/estimate", "POST", self._estimates.handle),
            self._route("/v1/comptroller/limits", "GET", self._limits.handle),
            self._route("/v1", None, self._not_found, is_mount=True),
        ]

    async def start(self) -> None:
        """Load policy and keys, and follow their changes."""
        # Loading takes tens of milliseconds, which no request should wait for.
        warm_vocabularies()
        self._events.subscribe(self._feed.apply)
        self._events.subscribe_installation(self._feed.apply_installation)
        self._events.subscribe_installation(self._load_calibrations)
        await self._feed.load_all()
        await self._load_calibrations()

    async def stop(self) -> None:
        """Let running requests finish, end those that do not, and close what is open.

        A request that is ended is settled and put on record when this returns.
        """
        grace_s = self._settings.shutdown_grace_s
        self._enforcer.stop()
        await self._running.end(grace_s=grace_s, last_words_s=LAST_WORDS_S)
        await self._feed.stop()
        await self._catalogue.aclose()

    async def _load_calibrations(self) -> None:
        async with self._database.read() as session:
            self._calibrations.replace(await load_calibrations(session))

    def _tell_breaker(self, organization_id: str, effect: Effect) -> None:
        """Put on record that a breaker opened or closed."""
        self._recorder.put_event(
            BreakerEvent(
                organization_id=UUID(organization_id),
                limit_id=UUID(effect.limit_id),
                scope_kind=effect.scope_kind or "",
                scope_id=UUID(effect.scope_id),
                is_open=effect.is_open or False,
                sum_nanos=effect.sum or 0,
                cap_nanos=effect.cap or 0,
                at_ns=effect.at_wall_ns or 0,
            )
        )

    def _route(
        self, path: str, method: str | None, handle: Handle, *, is_mount: bool = False
    ) -> ASGIRouteHandler:
        async def route(scope: Scope, receive: Receive, send: Send) -> None:
            if method is not None and scope["method"] != method:  # type: ignore[typeddict-item]
                await self._wrong_method(scope, receive, send, method)
                return
            await handle(scope, receive, send)

        return asgi(path, is_mount=is_mount, copy_scope=False)(route)

    async def _not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = Problem(404, "not_found", f"There is nothing at {scope['path'][:200]}.")
        await self._fail(scope, receive, send, problem)

    async def _wrong_method(self, scope: Scope, receive: Receive, send: Send, method: str) -> None:
        problem = Problem(
            405,
            "method_not_allowed",
            f"Use {method} here.",
            headers=((b"allow", method.encode()),),
        )
        await self._fail(scope, receive, send, problem)

    async def _fail(self, scope: Scope, receive: Receive, send: Send, problem: Problem) -> None:
        async def refuse(_client: Client, _request_id: bytes) -> None:
            raise problem

        await self._serving.serve(scope, receive, send, refuse)
