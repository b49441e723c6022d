"""An organization that is asked for what the product promises, and what must be true after it.

Policy is set by GraphQL, requests go to the proxy as an app's would; nothing is called directly
but what tells the state: counters, ledger, records.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx

from comptroller.simulator.running import RunningSimulator
from controlplane.api.nodes import NodeKind, global_id, parse_global_id
from controlplane.clock import ManualClock, nanoseconds
from controlplane.ledger.models import DecisionRow
from tests.proxy.untouched import wait_until
from tests.stack import Stack

MODEL = "sim-flat-0.05"
NANOS_PER_S = 1_000_000_000
TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Key:
    """A key with its secret and, as the API knows it, its id."""

    uuid: UUID
    secret: str
    id: str


class Tenant:
    """One organization, its admin, the operator, and the provider behind the installation."""

    def __init__(
        self, stack: Stack, provider: RunningSimulator, clock: ManualClock, operator_token: str
    ) -> None:
        self.stack = stack
        self.provider = provider
        self.clock = clock
        self.operator_token = operator_token
        organization = stack.organization_id
        self.id = global_id(NodeKind.ORGANIZATION, organization, organization)
        self.team_id = global_id(NodeKind.TEAM, organization, stack.team_id)
        self.member_id = global_id(NodeKind.MEMBER, organization, stack.member_id)

    def other(self, slug: str) -> Tenant:
        """Make another organization in the same installation."""
        found = self.stack.tenant(slug)
        return Tenant(found, self.provider, self.clock, self.operator_token)

    # --- policy ---

    def mutate(self, name: str, answer: str = "", /, **given: Any) -> Any:
        """Run a mutation as the admin; fails on errors of any kind."""
        return self._mutate(self.stack.admin_token, name, answer, given)

    def operate(self, name: str, answer: str = "", /, **given: Any) -> Any:
        """Run a mutation as the operator; fails on errors of any kind."""
        return self._mutate(self.operator_token, name, answer, given)

    def _mutate(self, token: str, name: str, answer: str, given: dict[str, Any]) -> Any:
        kind = name[0].upper() + name[1:] + "Input"
        asked = f"{answer} errors {{ code message field }}"
        query = f"mutation($input: {kind}!) {{ {name}(input: $input) {{ {asked} }} }}"
        payload = self.stack.graphql(query, token, input=given)[name]
        assert payload["errors"] == [], payload
        return payload

    def ask_graphql(self, selection: str) -> Any:
        """Select fields of the organization as its admin."""
        query = f"query($id: ID!) {{ node(id: $id) {{ ... on Organization {{ {selection} }} }} }}"
        return self.stack.graphql(query, id=self.id)["node"]

    def key(self, **given: Any) -> Key:
        """Make a key of the organization by GraphQL; without an owner it is a service's."""
        number = self.stack._keys = self.stack._keys + 1
        payload = self.mutate(
            "virtualKeyCreate",
            "secret virtualKey { id }",
            organizationId=self.id,
            name=f"key {number}",
            idempotencyKey=f"key-{number}",
            **given,
        )
        found = payload["virtualKey"]["id"]
        return Key(uuid_of(found), payload["secret"], found)

    def member_key(self, **given: Any) -> Key:
        """Make a key of the member in the team."""
        return self.key(**{"ownerId": self.member_id, "teamId": self.team_id, **given})

    def budget(self, scope: Mapping[str, Any], limit: str, **given: Any) -> str:
        """Set a budget; gives its id. It is of a calendar month where no window is given."""
        windows = {"period", "everyDays", "lifetime", "budgetId"}
        period = {} if windows & given.keys() else {"period": "MONTH"}
        payload = self.mutate(
            "budgetUpsert", "budget { id }", scope=scope, limit=limit, **period, **given
        )
        found: str = payload["budget"]["id"]
        return found

    # --- requests ---

    def ask(
        self,
        key: Key,
        model: str = MODEL,
        *,
        headers: Mapping[str, str] | None = None,
        content: str = "Hello",
        **fields: Any,
    ) -> httpx.Response:
        """Ask for a chat completion as an app would.

        No two requests come at the same instant: a clock that stands would tell otherwise.
        """
        self.clock.advance_ns(1)
        return httpx.post(
            f"{self.stack.base_url}/chat/completions",
            json={"model": model, "messages": [{"role": "user", "content": content}], **fields},
            headers={"authorization": f"Bearer {key.secret}", **(headers or {})},
            timeout=TIMEOUT_S,
        )

    def spend(self, key: Key, times: int = 1, model: str = MODEL, **asked: Any) -> httpx.Response:
        """Ask several times; each must be answered. Gives the last answer."""
        for _ in range(times):
            answer = self.ask(key, model, **asked)
            assert answer.status_code == 200, answer.text
        return answer

    @contextmanager
    def running(self, key: Key, count: int = 1, **asked: Any) -> Iterator[list[httpx.Response]]:
        """Have so many streams under way, which end when this is left."""
        open_before = self.stack.open_reservations()
        body = {
            "model": "streamed",
            "messages": [{"role": "user", "content": "[[sim output=1000 pace=10]] Hello"}],
            "stream": True,
            **asked,
        }
        with ExitStack() as streams:
            client = streams.enter_context(httpx.Client(timeout=TIMEOUT_S))
            started = [
                streams.enter_context(
                    client.stream(
                        "POST",
                        f"{self.stack.base_url}/chat/completions",
                        json=body,
                        headers={"authorization": f"Bearer {key.secret}"},
                    )
                )
                for _ in range(count)
            ]
            assert [each.status_code for each in started] == [200] * count
            yield started
        wait_until(lambda: self.stack.open_reservations() == open_before)

    def estimate(self, key: Key, model: str = MODEL, **headers: str) -> Any:
        """Ask what would become of a request."""
        answer = httpx.post(
            f"{self.stack.base_url}/comptroller/estimate",
            json={"model": model, "messages": [{"role": "user", "content": "Hello"}]},
            headers={"authorization": f"Bearer {key.secret}", **headers},
            timeout=TIMEOUT_S,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    # --- what is true ---

    def state(self) -> Any:
        """Give all that a refusal must leave as it is: bill, holds, counters, ledger."""
        stack = self.stack
        states = stack.engine.limit_states(
            str(stack.organization_id), self.clock.wall_ns(), self.clock.mono_ns()
        )
        shared = stack.engine.shared_states(self.clock.wall_ns(), self.clock.mono_ns())
        used = [
            (each["limit_id"], str(each["scope"]), each["used"], each["held"])
            for each in json.loads(states) + json.loads(shared)
        ]
        return {
            "billed": self.provider.bill()["requests"],
            "open": stack.open_reservations(),
            "counters": used,
            "ledger": [(each.id, each.charge_nanos) for each in stack.ledger()],
        }

    def refuse(
        self,
        key: Key,
        status: int,
        code: str,
        *,
        limit: Mapping[str, Any] | None = None,
        retry: tuple[str | None, str] = (None, "false"),
        **asked: Any,
    ) -> Refused:
        """Ask for what must be refused without a trace but for one record.

        `limit` is the whole limit object there must be, `retry` the headers `Retry-After` and
        `x-should-retry`.
        """
        before, records = self.state(), self.stack.records()
        answer = self.ask(key, **asked)
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert (error["code"], error.get("limit")) == (code, limit), error
        found = answer.headers
        assert (found.get("retry-after"), found["x-should-retry"]) == retry, found
        assert self.state() == before
        added = [each for each in self.stack.records() if each.id not in {r.id for r in records}]
        [record] = added
        assert (record.decision, record.code, record.http_status) == ("refused", code, status)
        assert (record.held_nanos, record.cost_nanos, record.charge_nanos) == (0, 0, 0)
        # What only wants to be confirmed is among the record's steps.
        refuses = limit is not None and code != "confirmation_required"
        assert record.limit_scope == (limit["scope"] if limit and refuses else None)
        assert answer.headers["x-request-id"] == f"req_{record.id.hex}"
        return Refused(answer, error, record)

    def last_record(self) -> DecisionRow:
        """Give the record of the request that was admitted or refused last."""
        return self.stack.records()[-1]

    # --- time ---

    def go_to(self, instant: str, *, less_ns: int = 0) -> None:
        """Let time pass until an instant, or until so many nanoseconds before it."""
        at_ns = nanoseconds(datetime.fromisoformat(instant)) - less_ns
        self.clock.advance_ns(at_ns - self.clock.wall_ns())

    def wait(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.clock.advance_ns(round(seconds * NANOS_PER_S))


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal: the answer, its error and its record."""

    answer: httpx.Response
    error: dict[str, Any]
    record: DecisionRow


def limit_object(
    scope: str,
    scope_id: object,
    window: str,
    *,
    resource: str = "spend",
    requested: str | int = "0.05",
    resets_at: str | None = None,
    waits_for: str = "period",
    retry_after_s: int | None = None,
    currency: str = "USD",
    **figures: str | int,
) -> dict[str, Any]:
    """Write the whole limit object of a refusal; `figures` are those its caller may see."""
    limit = {
        "scope": scope,
        "scope_id": str(scope_id),
        "resource": resource,
        "window": window,
        "requested": requested,
        "resets_at": resets_at,
        "waits_for": waits_for,
        "retry_after_s": retry_after_s,
        **figures,
    }
    return limit | ({"currency": currency} if resource == "spend" else {})


def uuid_of(global_id_text: str) -> UUID:
    """Read the row's id in a global id."""
    found = parse_global_id(global_id_text)
    assert found is not None
    return found.id
