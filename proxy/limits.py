"""`/v1/comptroller/limits`: what the limits of the caller's own key stand at."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar.types import Receive, Scope, Send
from msgspec import UNSET, UnsetType

from controlplane.clock import Clock, instant
from core_rs import Engine, KeyLimits
from proxy.authentication import Authenticator, check_state
from proxy.client import Client
from proxy.refusals import amount, visible_scopes
from proxy.rulings import Rulings
from proxy.serving import Serving, answer_json, policy_header


class _Scope(msgspec.Struct):
    kind: str
    id: str


class _State(msgspec.Struct):
    """A limit as the engine tells it; instants are nanoseconds since 1970."""

    limit_id: str
    kind: str
    scope: _Scope
    where: dict[str, Any] | None
    resource: str
    window: str
    time_zone: str | None
    mode: str
    hold: str
    cap: int
    used: int
    held: int
    ends_at_ns: int
    open: bool | None
    frees_at_ns: int | None
    empties_at_ns: int | None


class LimitAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A limit as it is answered; amounts of spend are decimal strings.

    `cap`, `used`, `held` and `remaining` are left out for scopes whose figures the key's owner
    may not see.
    """

    limit_id: str
    kind: str
    scope: str
    scope_id: str
    where: dict[str, Any] | None
    resource: str
    window: str
    time_zone: str | None
    mode: str
    cap: str | int | UnsetType = UNSET
    used: str | int | UnsetType = UNSET
    held: str | int | UnsetType = UNSET
    remaining: str | int | UnsetType = UNSET
    resets_at: str | None
    open: bool | None


class LimitsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """All limits of a key's path, the narrowest scope first."""

    object: str = "list"
    data: list[LimitAnswer]
    currency: str
    policy_version: str
    as_of: str


class Limits:
    """Lists the limits that a request of the key would have to fit."""

    def __init__(
        self,
        *,
        engine: Engine,
        authenticator: Authenticator,
        currencies: dict[str, str],
        serving: Serving,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._rulings = Rulings(engine)
        self._authenticator = authenticator
        self._currencies = currencies
        self._serving = serving
        self._clock = clock

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._serving.serve(scope, receive, send, self._answer)

    async def _answer(self, client: Client, request_id: bytes) -> None:
        wall_ns, mono_ns = self._clock.wall_ns(), self._clock.mono_ns()
        principal = self._authenticator.principal(client, wall_ns)
        check_state(principal)
        currency = self._currencies[principal.organization_id]
        found = self._engine.key_limits(principal.key, wall_ns, mono_ns)
        detail = self._rulings.of(principal).refusal_detail
        answer = LimitsAnswer(
            data=_limits(found, detail),
            currency=currency,
            policy_version=found.policy_version,
            as_of=instant(wall_ns).isoformat(),
        )
        header = policy_header(found.policy_version)
        await answer_json(client, request_id, msgspec.json.encode(answer), [header])


def _limits(found: KeyLimits, detail: str) -> list[LimitAnswer]:
    seen = visible_scopes(found.member_id, detail)
    states = msgspec.json.decode(found.states_json(), type=list[_State])
    return [_limit(state, is_seen=state.scope.kind in seen) for state in states]


def _limit(state: _State, *, is_seen: bool) -> LimitAnswer:
    resets_at_ns = _resets_at_ns(state, is_seen=is_seen)
    return LimitAnswer(
        limit_id=state.limit_id,
        kind=state.kind,
        scope=state.scope.kind,
        scope_id=state.scope.id,
        where=state.where,
        resource=state.resource,
        window=state.window,
        time_zone=state.time_zone,
        mode=state.mode,
        resets_at=None if resets_at_ns is None else instant(resets_at_ns).isoformat(),
        open=state.open,
        **(_figures(state) if is_seen else {}),
    )


def _figures(state: _State) -> dict[str, str | int]:
    """Tell the figures; what is held takes room of hard limits alone."""
    taken = state.used + (state.held if state.mode == "hard" else 0)
    figures = {
        "cap": state.cap,
        "used": state.used,
        "held": state.held,
        "remaining": max(0, state.cap - taken),
    }
    is_money = state.resource == "spend"
    return {name: amount(value, is_money=is_money) for name, value in figures.items()}


def _resets_at_ns(state: _State, *, is_seen: bool) -> int | None:
    """Tell when the period ends, an open breaker closes, or the window is empty again."""
    if state.window == "lifetime":
        return None
    if state.time_zone is not None:
        return state.ends_at_ns
    if state.open:
        return state.frees_at_ns
    return state.empties_at_ns if is_seen else None
