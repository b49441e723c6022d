"""The application: both planes over one engine, one database and one clock."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from typing import Literal
from uuid import UUID, uuid4

import msgspec
from litestar import Litestar, Response, get
from litestar.exceptions import HTTPException
from litestar.types import ControllerRouterHandler

from comptroller.logs import configure_logs
from comptroller.settings import Settings
from controlplane.clock import Clock, SystemClock
from controlplane.db import Database
from controlplane.events import Events
from controlplane.ids import IdSource
from controlplane.keys.secret import load_or_create_pepper
from controlplane.ledger.recorder import Recorder
from controlplane.ledger.records import DecisionRecord
from controlplane.limits.state import LimitState, no_limit_states
from controlplane.limits.subjects import Scope
from controlplane.live.feed import LiveFeed
from controlplane.pricing.override import PriceOverride
from controlplane.pricing.sheet import compile_sheet
from controlplane.routes import ControlPlane
from core_rs import Engine, EngineError, PriceSheet
from proxy.errors import Problem
from proxy.routes import Proxy
from proxy.routing import Catalogue, UpstreamEntry, UpstreamsFile, make_catalogue, read_upstreams
from proxy.upstream import UpstreamPool, UpstreamSettings

Plane = Literal["all", "proxy", "control"]


class Comptroller:
    """One process of the product, put together."""

    def __init__(
        self,
        settings: Settings,
        *,
        plane: Plane = "all",
        clock: Clock | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.ids = IdSource(self.clock)
        self.engine = Engine()
        self.events = Events()
        self.database = Database(settings.database_url)
        self.recorder = Recorder(
            self.database,
            queue_max=settings.control.records_queue_max,
            acknowledge=self._acknowledge,
            written=self._written,
        )
        self.live = LiveFeed(self.clock, self.recorder.flushed_session, self.events)
        self.is_ready = False
        self._stopping: asyncio.Task[None] | None = None
        self._plane = plane
        pepper = load_or_create_pepper(settings.control.data_dir)
        self.proxy = Proxy(
            engine=self.engine,
            catalogue=read_catalogue(settings, environment),
            recorder=self.recorder,
            database=self.database,
            events=self.events,
            clock=self.clock,
            ids=self.ids,
            pepper=pepper,
            settings=settings.proxy,
            control_settings=settings.control,
        )
        self.control = ControlPlane(
            settings.control,
            self.clock,
            self.ids,
            self.database,
            self.events,
            self.live,
            # Requests pass through other processes then, whose counters are not known here.
            limit_states=no_limit_states if plane == "control" else self._limit_states,
        )

    def routes(self) -> list[ControllerRouterHandler]:
        """List the routes of the planes this process serves."""
        routes: list[ControllerRouterHandler] = [livez, self._readyz()]
        if self._plane in {"all", "proxy"}:
            routes += self.proxy.routes()
        if self._plane in {"all", "control"}:
            routes += self.control.routes
        return routes

    async def start(self) -> None:
        """Bring the database up to date, load policy, begin to serve."""
        await self.control.start()
        self.recorder.start()
        await self.proxy.start()
        self._hear_signals()
        self.is_ready = True

    async def stop(self) -> None:
        """Finish what is written, close what is open."""
        await self._begin_to_stop()
        await self.recorder.stop()
        await self.database.aclose()

    async def _end_requests(self) -> None:
        # Sockets and event streams never end by themselves, and the server waits for them.
        await self.control.stop()
        await self.proxy.stop()
        # The server may be killed while it waits for connections: nothing must be lost then.
        await self.recorder.flush()

    def _hear_signals(self) -> None:
        """Begin to end running requests as soon as the server is told to stop.

        Granian asks the application to stop only after all requests have ended by themselves, and
        kills it after a minute. Its own handler belongs to the event loop and is woken by the same
        signal, whatever handler Python calls.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._begin_to_stop))

    def _begin_to_stop(self) -> asyncio.Task[None]:
        """End what the proxy does: once, whoever asks first."""
        self.is_ready = False
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._end_requests(), name="shutdown")
        return self._stopping

    def _acknowledge(self, organization_id: UUID, seq: int) -> None:
        self.engine.booked_through(self.engine.organization_index(str(organization_id)), seq)

    def _written(self, batch: Sequence[DecisionRecord]) -> None:
        self.live.take(batch)

    def _limit_states(self, organization_id: UUID, scope: Scope) -> dict[UUID, LimitState]:
        now_ns = self.clock.wall_ns()
        try:
            states = self.engine.scope_states(
                str(organization_id), scope.kind.value, str(scope.id), now_ns, self.clock.mono_ns()
            )
        except EngineError:
            # Its policy could not be loaded: nothing of it passes, and the ledger knows the rest.
            return {}
        return {
            each.limit_id: LimitState(
                settled=each.settled,
                held=each.used - each.settled + each.held,
                as_of_ns=now_ns,
                resets_at_ns=each.ends_at_ns if each.time_zone is not None else None,
                is_open=each.open or False,
                running=each.used - each.settled,
                frees_at_ns=each.frees_at_ns,
                still_held=each.held,
            )
            for each in msgspec.json.decode(states, type=list[_EngineLimitState])
        }

    def _readyz(self) -> ControllerRouterHandler:
        @get("/readyz", sync_to_thread=False)
        def readyz() -> Response[dict[str, str]]:
            if self.is_ready:
                return Response({"status": "ready"})
            return Response({"status": "starting"}, status_code=503)

        return readyz


@get("/livez", sync_to_thread=False)
def livez() -> dict[str, str]:
    """Say that the process runs."""
    return {"status": "alive"}


class _EngineLimitState(msgspec.Struct):
    """What the engine says of one limit; it says more than is asked here."""

    limit_id: UUID
    settled: int
    used: int
    held: int
    time_zone: str | None
    ends_at_ns: int | None
    open: bool | None
    frees_at_ns: int | None


def create_app(settings: Settings, *, plane: Plane = "all", clock: Clock | None = None) -> Litestar:
    """Make the application; the object behind it is `app.state.comptroller`."""
    comptroller = Comptroller(settings, plane=plane, clock=clock)
    app = Litestar(
        route_handlers=comptroller.routes(),
        on_startup=[comptroller.start],
        on_shutdown=[comptroller.stop],
        exception_handlers={HTTPException: _answer_http_error},
        openapi_config=None,
        logging_config=None,
    )
    app.state.comptroller = comptroller
    return app


def create_app_from_environment() -> Litestar:
    """Make the application for a server process that is told everything by its environment."""
    plane = os.environ.get("COMPTROLLER_PLANE", "all")
    if plane not in {"all", "proxy", "control"}:
        raise ValueError(f"COMPTROLLER_PLANE={plane!r} must be all, proxy or control")
    configure_logs()
    app = create_app(Settings.from_environment(os.environ), plane=plane)  # type: ignore[arg-type]
    app.on_startup.append(_keep_what_is_loaded)
    return app


def _keep_what_is_loaded() -> None:
    """Take all that was loaded out of the garbage collector's sight.

    It stays for the life of the process; looking through it takes tens of milliseconds, in which
    no request is served.
    """
    gc.collect()
    gc.freeze()


def _answer_http_error(_request: object, error: HTTPException) -> Response[bytes]:
    codes = {404: "not_found", 405: "method_not_allowed"}
    code = codes.get(error.status_code, "invalid_value")
    problem = Problem(error.status_code, code, error.detail or "There is nothing here.")
    return Response(
        problem.body(),
        status_code=error.status_code,
        media_type="application/json",
        headers={"x-should-retry": "false", "x-request-id": f"req_{uuid4().hex}"},
    )


def read_catalogue(settings: Settings, environment: Mapping[str, str]) -> Catalogue:
    """Read the upstreams file, and connect its models to their prices and connection pools.

    Raises `OSError`, `ValueError` or `InvalidInput` for a file, an address, a credential or a
    price that cannot be used.
    """
    file = _read_file(settings)
    sheet = PriceSheet(compile_sheet(_overrides(file)).json)
    return make_catalogue(file, sheet, _make_pool, environment)


def _read_file(settings: Settings) -> UpstreamsFile:
    path = settings.proxy.upstreams_file
    return UpstreamsFile([]) if path is None else read_upstreams(path.read_bytes())


def _overrides(file: UpstreamsFile) -> list[PriceOverride]:
    return [
        PriceOverride(
            provider=upstream.provider,
            model=model.upstream_model or model.name,
            **{key: value for key, value in msgspec.structs.asdict(model.price).items() if value},
        )
        for upstream in file.upstreams
        for model in upstream.models
        if model.price is not None
    ]


def _make_pool(upstream: UpstreamEntry) -> UpstreamPool:
    settings = UpstreamSettings(
        private_allowed=tuple(upstream.private_addresses),
        connect_timeout_s=upstream.connect_timeout_s,
        read_idle_timeout_s=upstream.silence_timeout_s,
    )
    return UpstreamPool(upstream.base_url, settings=settings)
