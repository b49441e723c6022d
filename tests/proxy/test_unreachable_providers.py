"""Providers that cannot be reached: nothing was sent, so nothing is booked and all may be repeated."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import openai
import pytest

from comptroller.demo import simulated_upstreams
from comptroller.simulator.running import RunningSimulator
from controlplane.limits.models import ScopeKind
from tests.proxy.asking import answers_well, ask, body, pool, the_record
from tests.stack import Stack, free_port, running_stack

PRICE = {"request": "0.05"}
CONNECT_TIMEOUT_S = 0.3


@pytest.fixture(scope="module")
def full_port() -> Iterator[int]:
    """A port whose queue of connections is full, so that the next one waits for ever."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex(address)
        yield address[1]


@pytest.fixture(scope="module")
def unreached(
    tmp_path_factory: pytest.TempPathFactory, shared_provider: RunningSimulator, full_port: int
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("unreached")
    described = simulated_upstreams(shared_provider.base_url)
    loopback = ["127.0.0.0/8"]
    described["upstreams"] += [
        _upstream("refused", f"http://127.0.0.1:{free_port()}/v1", loopback),
        _upstream("silent", f"http://127.0.0.1:{full_port}/v1", loopback),
        _upstream("unknown", "http://provider.invalid/v1", loopback),
        _upstream("private", f"{shared_provider.base_url}", []),
    ]
    path = folder / "own-upstreams.json"
    path.write_text(json.dumps(described))
    with running_stack(folder, shared_provider, organization=False, upstreams_file=path) as running:
        pool(running, "unknown")._book._resolve = _knows_nobody
        yield running


def _upstream(name: str, base_url: str, private_addresses: list[str]) -> dict[str, object]:
    model = {"name": name, "output_tokens_max": 100, "price": PRICE}
    return {
        "name": name,
        "provider": name,
        "base_url": base_url,
        "private_addresses": private_addresses,
        "connect_timeout_s": CONNECT_TIMEOUT_S,
        "models": [model],
    }


async def _knows_nobody(host: str, port: int) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.fixture
def stack(unreached: Stack, request: pytest.FixtureRequest) -> Stack:
    return unreached.tenant(f"org-{abs(hash(request.node.nodeid))}")


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("refused", 502, "upstream_unreachable"),
        ("silent", 504, "upstream_connect_timeout"),
        ("unknown", 502, "upstream_unreachable"),
        ("private", 502, "upstream_unreachable"),
    ],
)
def test_what_was_not_sent_is_released_and_may_be_repeated(
    stack: Stack, provider: RunningSimulator, model: str, status: int, code: str, stream: bool
) -> None:
    # Room for one request: a hold that stayed would refuse the second.
    stack.budget(stack.scope(ScopeKind.ORGANIZATION), "0.05")
    answer = ask(stack, model=model, stream=stream)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (status, code, "api_error")
    assert (answer.headers["x-should-retry"], answer.headers["retry-after"]) == ("true", "1")
    # Where providers are is the operator's business.
    assert "127.0.0.1" not in answer.text
    assert "invalid" not in error["message"]
    record = the_record(stack, provider)
    assert (record.decision, record.code, record.http_status) == ("failed", code, status)
    assert (record.upstream_status, record.first_byte_at_ns) == (None, None)
    assert (record.usage_source, record.charge_nanos) == ("none", 0)
    assert record.held_nanos == 50_000_000
    assert stack.ledger() == []
    assert provider.requests() == []
    assert pool(stack, model).connections_open == 0
    answers_well(stack, provider)


def test_the_sdk_repeats_it_by_itself_and_nothing_is_booked(
    stack: Stack, provider: RunningSimulator
) -> None:
    client = openai.OpenAI(base_url=stack.base_url, api_key=stack.key()[1], max_retries=1)
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**body(model="refused"))
    assert caught.value.body["code"] == "upstream_unreachable"
    assert [record.charge_nanos for record in stack.records()] == [0, 0]
    assert stack.ledger() == []
    assert stack.open_reservations() == 0
