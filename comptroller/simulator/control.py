"""The control routes under `/_simulator/`: bill, faults, history, reset."""

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from comptroller.simulator.answers import encode, error_body
from comptroller.simulator.billing import Bill, amount_nanos
from comptroller.simulator.exchange import Exchange
from comptroller.simulator.faults import FaultRules, fault_rule
from comptroller.simulator.history import History

PREFIX = "/_simulator/"


class Control:
    """Answer the control routes; what they change is shared with the API."""

    def __init__(
        self,
        bill: Bill,
        rules: FaultRules,
        history: History,
        idle: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._bill = bill
        self._rules = rules
        self._history = history
        self._idle = idle
        self._routes: dict[str, Callable[[Exchange], Coroutine[Any, Any, dict[str, Any]]]] = {
            "GET bill": self._show_bill,
            "POST bill/assert": self._assert_bill,
            "POST reset": self._reset,
            "GET faults": self._show_faults,
            "POST faults": self._add_fault,
            "DELETE faults": self._clear_faults,
            "GET requests": self._show_requests,
        }

    async def answer(self, exchange: Exchange) -> None:
        """Answer one control request; 404 names the routes there are."""
        route = f"{exchange.request.method} {exchange.request.path.removeprefix(PREFIX)}"
        handle = self._routes.get(route)
        if handle is None:
            message = f"The control routes under {PREFIX} are: {', '.join(self._routes)}."
            await exchange.answer(404, error_body(404, message, "not_found"))
            return
        try:
            answer = await handle(exchange)
        except ValueError as error:
            await exchange.answer(400, error_body(400, str(error), "invalid_value"))
            return
        await exchange.answer(200, encode(answer))

    async def _show_bill(self, exchange: Exchange) -> dict[str, Any]:
        if exchange.request.query == "when=idle":
            await self._idle()
        return self._bill.shown()

    async def _assert_bill(self, exchange: Exchange) -> dict[str, Any]:
        maximum = _document(exchange).get("max")
        if not isinstance(maximum, str):
            raise ValueError(  # noqa: TRY004 - answered 400 like the others
                'Send {"max": "1.00"}: an amount as a string.'
            )
        self._bill.assert_max(amount_nanos(maximum))
        return self._bill.shown()

    async def _reset(self, _exchange: Exchange) -> dict[str, Any]:
        self._bill.reset()
        self._rules.clear()
        self._history.clear()
        return self._bill.shown()

    async def _show_faults(self, _exchange: Exchange) -> dict[str, Any]:
        return {"faults": self._rules.shown()}

    async def _add_fault(self, exchange: Exchange) -> dict[str, Any]:
        parameters = _document(exchange)
        self._rules.add(fault_rule(str(parameters.pop("fault", "")), parameters))
        return {"faults": self._rules.shown()}

    async def _clear_faults(self, _exchange: Exchange) -> dict[str, Any]:
        self._rules.clear()
        return {"faults": []}

    async def _show_requests(self, _exchange: Exchange) -> dict[str, Any]:
        return self._history.shown()


def _document(exchange: Exchange) -> dict[str, Any]:
    """Read the body as a JSON object. Raises ValueError."""
    return msgspec.json.decode(exchange.request.body, type=dict[str, Any])
