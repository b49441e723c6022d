"""An installation of the proxy whose streams are followed, and the policies that bind its callers.

A token of `dear` costs a thousandth of a dollar and its prompts nothing, so that amounts can be
read as tokens. `cheap` costs a tenth of that. `whole` is `dear` at a provider that goes on billing
when it is cut off, so that its bound is held.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from comptroller.demo import simulated_upstreams
from comptroller.simulator import SimulatorSettings, simulator_in_thread, token_priced
from comptroller.simulator.running import RunningSimulator
from controlplane.context import Work
from controlplane.ledger.models import DecisionRow
from controlplane.limits.models import Hold, Limit, Mode, Period
from controlplane.limits.service import set_concurrency_limit, upsert_budget
from controlplane.limits.steps import Step
from controlplane.limits.subjects import Scope
from controlplane.money import parse_money
from controlplane.policies.queries import rule_of
from controlplane.policies.service import set_rule
from controlplane.policies.values import RuleChanges
from tests.proxy.asking import headers
from tests.proxy.untouched import wait_until
from tests.stack import Stack, running_stack

DEAR, CHEAP, WHOLE, UNPRICED = "dear", "cheap", "whole", "unpriced"
TOKEN_NANOS = parse_money("0.001")
OUTPUT_TOKENS_MAX = 1_000
# What the simulated provider generates on top when it notices an abort, and what we charge for it.
NOTICED_TOKENS, ABORT_TAIL_TOKENS = 2, 22


@contextmanager
def limited_provider() -> Iterator[RunningSimulator]:
    """Run a provider with the two prices."""
    models = (
        token_priced(DEAR, "0", "1000.00", output_tokens_max=OUTPUT_TOKENS_MAX),
        token_priced(CHEAP, "0", "100.00", output_tokens_max=OUTPUT_TOKENS_MAX),
    )
    settings = SimulatorSettings(models=models, abort_tail_tokens=NOTICED_TOKENS)
    with simulator_in_thread(settings) as running:
        yield running


@contextmanager
def limited_installation(
    folder: Path, provider: RunningSimulator, **options: Any
) -> Iterator[Stack]:
    """Run an installation that serves its models."""
    described: dict[str, Any] = simulated_upstreams(provider.base_url)
    described["upstreams"][0]["models"] = [
        _model(DEAR, tier="premium", price=_price("1000.00")),
        _model(CHEAP, tier="basic", price=_price("100.00")),
        _model(WHOLE, upstream_model=DEAR, on_disconnect="drain"),
        _model(UNPRICED),
    ]
    path = folder / "own-upstreams.json"
    path.write_text(json.dumps(described))
    with running_stack(folder, provider, upstreams_file=path, **options) as running:
        yield running


def _price(output: str) -> dict[str, str]:
    return {"input_per_million": "0", "output_per_million": output}


def _model(name: str, **facts: Any) -> dict[str, Any]:
    return {
        "name": name,
        "output_tokens_max": OUTPUT_TOKENS_MAX,
        "vocabulary": "o200k_base",
        "on_disconnect": "cancel",
        "abort_tail_tokens": ABORT_TAIL_TOKENS,
        **facts,
    }


def rule(stack: Stack, scope: Scope, **changes: Any) -> None:
    """Say something in the rule of a scope, whatever it says already."""
    asked: RuleChanges = changes  # type: ignore[assignment]

    async def say(work: Work) -> None:
        row = await rule_of(work.session, stack.organization_id, scope)
        version = None if row is None else row.version
        await set_rule(work, stack.organization_id, scope, asked, expected_version=version)

    stack.change(say)


def budget(
    stack: Stack,
    scope: Scope,
    cap: str,
    *steps: Step,
    hold: Hold = Hold.EXPECTED,
    mode: Mode = Mode.HARD,
    models: Sequence[str] | None = None,
    version: int | None = None,
) -> Limit:
    """Set a monthly budget."""
    return stack.change(
        lambda work: upsert_budget(
            work,
            stack.organization_id,
            scope,
            cap_nanos=parse_money(cap),
            period=Period.MONTH,
            mode=mode,
            where=None if models is None else {"models": models},
            changes={"hold": hold, "steps": steps},
            expected_version=version,
        )
    )


def concurrency(stack: Stack, scope: Scope, requests_max: int) -> None:
    """Let so many requests run at a time."""
    stack.change(
        lambda work: set_concurrency_limit(
            work, stack.organization_id, scope, requests_max=requests_max
        )
    )


def body(directive: str, model: str = DEAR, **fields: Any) -> dict[str, Any]:
    """Write a request whose answer comes as the directive says."""
    message = {"role": "user", "content": f"[[sim {directive}]] Hi"}
    return {"model": model, "messages": [message], **fields}


def ask(
    stack: Stack,
    secret: str,
    directive: str,
    *,
    more: dict[str, str] | None = None,
    model: str = DEAR,
    **fields: Any,
) -> httpx.Response:
    """Ask and take the whole answer; `more` are further headers."""
    return httpx.post(
        f"{stack.base_url}/chat/completions",
        json=body(directive, model, **fields),
        headers={**headers(secret), **(more or {})},
        timeout=60,
    )


class Asking(threading.Thread):
    """A request in a thread of its own."""

    def __init__(self, stack: Stack, secret: str, directive: str, **fields: Any) -> None:
        super().__init__(daemon=True)
        self._asked = (stack, secret, directive)
        self._fields = fields
        self._answer: httpx.Response | None = None
        self.start()

    def run(self) -> None:
        self._answer = ask(*self._asked, **self._fields)

    def answer(self) -> httpx.Response:
        """Wait for the answer."""
        self.join(60)
        assert self._answer is not None
        return self._answer


def until_asked(provider: RunningSimulator, count: int = 1) -> None:
    """Wait until the provider has been asked so often."""
    wait_until(lambda: len(provider.requests()) >= count)


def until_waiting(stack: Stack, count: int = 1) -> None:
    """Wait until so many requests stand in line."""
    wait_until(lambda: waiting(stack) == count)


def waiting(stack: Stack) -> int:
    """Count the requests of all organizations that stand in line."""
    return len(stack.comptroller.proxy._enforcer._waiting)


def held_nanos(stack: Stack) -> dict[str, int]:
    """Tell what is held on every budget, by scope."""
    clock = stack.comptroller.clock
    organization = str(stack.organization_id)
    states = json.loads(stack.engine.limit_states(organization, clock.wall_ns(), clock.mono_ns()))
    return {state["scope"]["kind"]: state["held"] for state in states if state["kind"] == "budget"}


def teach(stack: Stack, secret: str, output_tokens: int, model: str = DEAR) -> None:
    """Let five answers of a length be seen, so that it is expected; they are paid for."""
    for _ in range(5):
        answer = ask(stack, secret, f"output={output_tokens}", model=model)
        assert answer.json()["usage"]["completion_tokens"] == output_tokens


def record_of(stack: Stack, answer: httpx.Response) -> DecisionRow:
    """Give the record of an answered request."""
    name = answer.headers["x-request-id"].removeprefix("req_")
    wait_until(lambda: any(UUID(name) == row.id for row in stack.records()))
    [record] = [row for row in stack.records() if row.id == UUID(name)]
    return record


def actions(record: DecisionRow) -> Sequence[str]:
    """List the actions of the steps that a request went through."""
    return [step["action"] for step in record.steps]
