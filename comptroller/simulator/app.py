"""The application: which route answers, and what every answer leaves behind."""

from datetime import datetime
from typing import Any

import structlog

from comptroller.simulator.answers import encode, error_body
from comptroller.simulator.billing import Bill
from comptroller.simulator.chat import ChatCompletions
from comptroller.simulator.control import PREFIX, Control
from comptroller.simulator.echo import Echo
from comptroller.simulator.exchange import Exchange, Request
from comptroller.simulator.faults import FaultRules
from comptroller.simulator.history import History
from comptroller.simulator.models import ECHO_MODEL
from comptroller.simulator.requests import BadRequest
from comptroller.simulator.settings import SimulatorSettings
from comptroller.simulator.watching import Watch
from comptroller.simulator.writing import write_answer
from controlplane.clock import Clock, instant

CHAT_PATH = "/v1/chat/completions"
MODELS_PATH = "/v1/models"
_log = structlog.get_logger(__name__)


class SimulatorApp:
    """The state of one simulated provider and its answers. Owned by one event loop."""

    def __init__(self, settings: SimulatorSettings, clock: Clock) -> None:
        self._clock = clock
        self.bill = Bill(self._wall_now)
        self.rules = FaultRules()
        self.history = History(settings.requests_kept_max)
        self._settings = settings
        self._watch = Watch()
        self._answering = 0
        self._chat = ChatCompletions(settings, self.bill, self.rules, self._wall_now)
        self._control = Control(self.bill, self.rules, self.history, self.idle)
        self._echo = self._made_echo()

    def shortcut(self, request: Request) -> bytes | None:
        """Answer `bench-echo` at once; None leaves the request to `answer`."""
        is_plain = self._echo is not None and request.path == CHAT_PATH and request.keep_alive
        if not is_plain or self.rules or not self._is_authorized(request):
            return None
        return self._echo.answer(request.body) if self._echo is not None else None

    async def answer(self, exchange: Exchange) -> None:
        """Answer one request, whatever happens; used as the server's handler."""
        if exchange.request.path.startswith(PREFIX):
            await self._control.answer(exchange)
            return
        self._answering += 1
        self.history.add(self._wall_now(), exchange)
        try:
            await self._answer_api(exchange)
        except Exception:  # noqa: BLE001 - the edge: a defect must not look like a hung provider
            _log.exception("simulator_failed", path=exchange.request.path)
            exchange.outcome.fate = "failed"
            await exchange.reset()
        finally:
            self._answered(exchange)

    async def idle(self) -> None:
        """Wait until no request to the API is being answered."""
        await self._watch.until(lambda: not self._answering)

    async def generating(self, count: int) -> None:
        """Wait until at least so many requests are on the bill and not finished."""
        await self._watch.until(lambda: self.bill.open_requests >= count)

    def _answered(self, exchange: Exchange) -> None:
        if exchange.outcome.fate == "open":
            exchange.outcome.fate = "client_left" if exchange.is_left else "answered"
        self._answering -= 1
        self._watch.changed()

    async def _answer_api(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.path == "/livez":
            await exchange.answer(200, b'{"status":"ok"}')
        elif not self._is_authorized(request):
            body = error_body(401, "Incorrect API key provided.", "invalid_api_key")
            await exchange.answer(401, body)
        elif request.path == CHAT_PATH and request.method == "POST":
            await self._complete(exchange)
        elif request.path == MODELS_PATH and request.method == "GET":
            await exchange.answer(200, encode(self._models()))
        else:
            await _answer_unknown(exchange)

    async def _complete(self, exchange: Exchange) -> None:
        try:
            job = await self._chat.accept(exchange)
        except BadRequest as error:
            body = error_body(error.status, error.message, error.code, error.param)
            await exchange.answer(error.status, body)
            return
        if job is not None:
            self._watch.changed()
            await write_answer(job)

    def _is_authorized(self, request: Request) -> bool:
        api_key = self._settings.api_key
        return api_key is None or request.header("authorization") == f"Bearer {api_key}"

    def _models(self) -> dict[str, Any]:
        return {
            "object": "list",
            "data": [
                {"id": name, "object": "model", "created": 0, "owned_by": "simulator"}
                for name in self._chat.catalogue.names()
            ],
        }

    def _made_echo(self) -> Echo | None:
        model = self._chat.catalogue.find(ECHO_MODEL)
        if model is None:
            return None
        created_s = int(self._wall_now().timestamp())
        return Echo(model, self.bill, self._chat.words, created_s)

    def _wall_now(self) -> datetime:
        return instant(self._clock.wall_ns())


async def _answer_unknown(exchange: Exchange) -> None:
    request = exchange.request
    status = 405 if request.path in (CHAT_PATH, MODELS_PATH) else 404
    code = "method_not_allowed" if status == 405 else "not_found"  # noqa: PLR2004
    message = f"Invalid URL ({request.method} {request.path})"
    await exchange.answer(status, error_body(status, message, code))
