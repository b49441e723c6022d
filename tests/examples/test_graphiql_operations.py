"""The ten operations of GraphiQL, each executed as it stands, in the order of its tabs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from graphql import parse
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from controlplane.api.explorer import read_operations
from tests.stack import Stack

OPERATIONS = {
    parse(each.query).definitions[0].name.value: each  # type: ignore[union-attr]
    for each in read_operations()
}
PROTOCOLS = [Subprotocol("graphql-transport-ws")]
HELLO = [{"role": "user", "content": "Hello"}]


class Tabs:
    """Runs operations by name, with their own variables but for those that are given."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        [membership] = self.run("WhoAmI")["viewer"]["memberships"]
        self.place = membership["organizationId"]
        slug = "query($id: ID!) { node(id: $id) { ... on Organization { slug } } }"
        self.slug = stack.graphql(slug, id=self.place)["node"]["slug"]

    def variables(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        own = json.loads(OPERATIONS[name].variables or "{}")
        if "input" in own:
            return {"input": {**own["input"], **given}}
        return {**own, **given}

    def run(self, name: str, **given: Any) -> Any:
        return self.stack.graphql(OPERATIONS[name].query, **self.variables(name, given))

    @contextmanager
    def socket(self) -> Iterator[ClientConnection]:
        address = self.stack.address.replace("http", "ws")
        payload = {"authorization": f"Bearer {self.stack.admin_token}"}
        with connect(f"{address}/graphql", subprotocols=PROTOCOLS) as socket:
            socket.send(json.dumps({"type": "connection_init", "payload": payload}))
            assert json.loads(socket.recv(timeout=10))["type"] == "connection_ack"
            yield socket

    def follow(self, socket: Any, name: str, **given: Any) -> None:
        payload = {
            "query": OPERATIONS[name].query,
            "variables": self.variables(name, given),
            "operationName": name,
        }
        socket.send(json.dumps({"type": "subscribe", "id": name, "payload": payload}))


def event(socket: Any) -> Any:
    while (message := json.loads(socket.recv(timeout=10)))["type"] == "ping":
        socket.send('{"type": "pong"}')
    assert message["type"] == "next", message
    assert "errors" not in message["payload"], message
    return message["payload"]["data"]


def spend(stack: Stack, secret: str) -> None:
    """Ask a model, and wait until that is on record."""
    client = openai.OpenAI(base_url=stack.base_url, api_key=secret)
    client.chat.completions.create(model="sim-flat-0.05", messages=HELLO)
    assert len(stack.records()) == 1


@pytest.fixture
def tabs(stack: Stack) -> Tabs:
    return Tabs(stack)


def test_structure(tabs: Tabs) -> None:
    found = tabs.run("TeamsAndMembers", slug=tabs.slug)["organization"]
    assert [team["name"] for team in found["teams"]["nodes"]] == ["Research"]
    assert {member["role"] for member in found["members"]["nodes"]} == {"MEMBER", "ADMIN"}


def test_a_key_is_made_rotated_and_works(tabs: Tabs) -> None:
    made = tabs.run("CreateKey", organizationId=tabs.place)["virtualKeyCreate"]
    assert (made["errors"], made["virtualKey"]["name"]) == ([], "Search service")
    key_id = made["virtualKey"]["id"]
    rotated = tabs.run("RotateKey", keyId=key_id)["virtualKeyRotate"]
    assert (rotated["errors"], rotated["virtualKey"]["id"]) == ([], key_id)
    assert rotated["secret"] != made["secret"]
    spend(tabs.stack, rotated["secret"])
    [request] = tabs.run("Requests", slug=tabs.slug)["organization"]["requests"]["nodes"]
    assert (request["decision"], request["charge"]) == ("allowed", "0.05")


def test_a_budget_is_set_and_shows_its_state(tabs: Tabs) -> None:
    scope = {"organizationId": tabs.place}
    made = tabs.run("SetBudget", scope=scope)["budgetUpsert"]
    assert (made["errors"], made["budget"]["limit"]) == ([], "250.00")
    spend(tabs.stack, tabs.stack.key()[1])
    [budget] = tabs.run("BudgetsWithLiveState", slug=tabs.slug)["organization"]["budgets"]["nodes"]
    assert (budget["state"]["settled"], budget["state"]["remaining"]) == ("0.05", "249.95")


def test_usage_adds_up(tabs: Tabs) -> None:
    spend(tabs.stack, tabs.stack.key()[1])
    assert len(tabs.run("Requests", slug=tabs.slug)["organization"]["requests"]["nodes"]) == 1
    usage = tabs.run("UsageByTeamAndModel", slug=tabs.slug)["organization"]["usage"]
    assert (usage["totals"]["cost"], usage["totals"]["requests"]) == ("0.05", "1")
    [series] = usage["series"]
    labels = [dimension["label"] for dimension in series["dimensions"]]
    assert (labels, series["totals"]["cost"]) == (["Research", "sim-flat-0.05"], "0.05")


def test_spend_and_requests_are_followed(tabs: Tabs) -> None:
    secret = tabs.stack.key()[1]
    with tabs.socket() as spending, tabs.socket() as requests:
        tabs.follow(spending, "LiveSpend", organizationId=tabs.place)
        [first] = event(spending)["liveSpend"]["scopes"]
        assert (first["scope"]["kind"], first["lastMinute"]) == ("ORGANIZATION", "0.00")
        tabs.follow(requests, "RequestLog", organizationId=tabs.place)
        spend(tabs.stack, secret)
        while (seen := event(spending)["liveSpend"]["scopes"][0])["lastMinute"] != "0.05":
            pass
        assert seen["requestsPerMinute"] == "1"
        batch = event(requests)["requestLog"]
        assert [each["charge"] for each in batch["requests"]] == ["0.05"]
        assert batch["dropped"] == 0
