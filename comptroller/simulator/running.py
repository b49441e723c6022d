"""Starting and stopping a simulated provider: in a test's loop, in a thread, in a process."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from comptroller.simulator.app import SimulatorApp
from comptroller.simulator.billing import amount_nanos
from comptroller.simulator.connection import Connections
from comptroller.simulator.faults import fault_rule
from comptroller.simulator.settings import SimulatorSettings
from controlplane.clock import Clock, SystemClock

BACKLOG = 1024
START_TIMEOUT_S = 30.0


class RunningSimulator:
    """A simulated provider that answers, and what a test asks it directly."""

    def __init__(
        self, app: SimulatorApp, host: str, port: int, call: Callable[[Callable[[], Any]], Any]
    ) -> None:
        self.port = port
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._app = app
        self._call = call

    @property
    def base_url(self) -> str:
        """What an OpenAI SDK takes as its base URL."""
        return f"{self.address}/v1"

    def bill(self) -> dict[str, Any]:
        """Give the bill, as `GET /_simulator/bill` does."""
        return self._asked(self._app.bill.shown)

    def requests(self) -> list[dict[str, Any]]:
        """Give the last requests, the oldest first."""
        shown: list[dict[str, Any]] = self._asked(self._app.history.shown)["requests"]
        return shown

    def assert_max(self, amount: str) -> None:
        """Record a violation whenever the running total is above an amount of dollars."""
        self._call(lambda: self._app.bill.assert_max(amount_nanos(amount)))

    def add_fault(self, fault: str, **parameters: Any) -> None:
        """Add a fault rule. Raises ValueError for a fault or parameter there is not."""
        self._call(lambda: self._app.rules.add(fault_rule(fault, parameters)))

    def clear_faults(self) -> None:
        """Forget every fault rule."""
        self._call(self._app.rules.clear)

    def reset(self) -> None:
        """Forget the bill, what was asserted of it, every fault rule and the history."""
        self._call(self._app.bill.reset)
        self._call(self._app.history.clear)
        self.clear_faults()

    async def idle(self) -> None:
        """Wait until nothing is being answered; only in the simulator's own loop."""
        await self._app.idle()

    async def generating(self, count: int) -> None:
        """Wait until at least so many answers are being generated; only in its own loop."""
        await self._app.generating(count)

    def _asked(self, question: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        answer: dict[str, Any] = self._call(question)
        return answer


@asynccontextmanager
async def simulator(
    settings: SimulatorSettings | None = None, *, clock: Clock | None = None
) -> AsyncIterator[RunningSimulator]:
    """Run a simulated provider in the current loop for as long as the context lasts.

    Raises OSError where the port cannot be taken.
    """
    settings = settings or SimulatorSettings()
    async with _serving(settings, clock or SystemClock()) as (app, port):
        yield RunningSimulator(app, settings.host, port, lambda ask: ask())


@asynccontextmanager
async def _serving(
    settings: SimulatorSettings, clock: Clock
) -> AsyncIterator[tuple[SimulatorApp, int]]:
    app = SimulatorApp(settings, clock)
    connections = Connections(app.answer, app.shortcut, body_bytes_max=settings.body_bytes_max)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        connections.connection, settings.host, settings.port, backlog=BACKLOG
    )
    try:
        yield app, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await connections.aclose()


@contextmanager
def simulator_in_thread(settings: SimulatorSettings | None = None) -> Iterator[RunningSimulator]:
    """Run a simulated provider in a thread of its own, for callers that block.

    Raises whatever kept it from starting.
    """
    served = _Served(settings or SimulatorSettings())
    thread = threading.Thread(target=served.run, name="simulator", daemon=True)
    thread.start()
    try:
        yield served.running()
    finally:
        served.end()
        thread.join()


class _Served:
    """A loop for a thread; questions are asked inside it, so that the state has one owner."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._started: Future[RunningSimulator] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event

    def run(self) -> None:
        """Serve until `end` is called; what goes wrong before is given to the caller."""
        try:
            asyncio.run(self._serve())
        except BaseException as failure:
            if self._started.done():
                raise
            self._started.set_exception(failure)

    def running(self) -> RunningSimulator:
        """Wait until the simulator answers."""
        return self._started.result(START_TIMEOUT_S)

    def end(self) -> None:
        """Tell the loop to stop, if it runs."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ended.set)

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        async with _serving(self._settings, SystemClock()) as (app, port):
            self._loop = asyncio.get_running_loop()
            running = RunningSimulator(app, self._settings.host, port, self._ask)
            self._started.set_result(running)
            await self._ended.wait()

    def _ask(self, question: Callable[[], Any]) -> Any:
        assert self._loop is not None

        async def asked() -> Any:
            return question()

        return asyncio.run_coroutine_threadsafe(asked(), self._loop).result(START_TIMEOUT_S)
