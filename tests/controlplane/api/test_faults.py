"""Failures nobody expected: masked for the caller, logged once with what happened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from controlplane.api.nodes import NodeKind, global_id
from controlplane.db import Database
from controlplane.settings import sqlite_url

SECRET = "postgresql://root:hunter2@10.0.0.7"
BUDGET = """mutation($input: BudgetUpsertInput!) { budgetUpsert(input: $input) {
  budget { limit state { settled } } errors { code } } }"""
BUDGETS = (
    """{ organization(slug: "acme") { slug budgets { nodes { limit state { settled } } } } }"""
)


def fails(_organization_id, _scope) -> dict:
    raise OSError(SECRET)


@pytest.fixture
async def broken(api, org):
    """An API whose engine fails when it is asked, and a budget to ask it about."""
    token = await api.token(org.admin)
    place = global_id(NodeKind.ORGANIZATION, org.id, org.id)
    wanted = {"scope": {"organizationId": place}, "period": "DAY", "limit": "5"}
    await api.ask(token, BUDGET, input=wanted)
    object.__setattr__(api.plane.backend, "limit_states", fails)
    return api


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/event-stream"])
async def test_what_fails_in_a_resolver_is_masked_and_logged_once(broken, org, accept) -> None:
    headers = {"authorization": f"Bearer {await broken.token(org.admin)}", "accept": accept}
    with capture_logs() as logs:
        response = await broken.client.post("/graphql", json={"query": BUDGETS}, headers=headers)
    text = response.text
    if accept == "text/event-stream":
        text = text.split("data: ")[1].split("\n")[0]
    body = json.loads(text)
    assert response.status_code == 200
    # A budget may have no state, so that the rest of the organization is shown.
    nodes = [{"limit": "5.00", "state": None}]
    assert body["data"] == {"organization": {"slug": "acme", "budgets": {"nodes": nodes}}}
    [error] = body["errors"]
    request_id = response.headers["x-request-id"]
    assert error == {
        "message": "Something went wrong here.",
        "locations": [{"line": 1, "column": 61}],
        "path": ["organization", "budgets", "nodes", 0, "state"],
        "extensions": {"code": "INTERNAL", "requestId": request_id},
    }
    assert "hunter2" not in response.text
    [logged] = [each for each in logs if each["log_level"] == "error"]
    assert (logged["event"], logged["request_id"]) == ("api_error", request_id)
    assert str(logged["exc_info"]) == SECRET


async def test_a_change_that_fails_while_it_is_shown_says_so(broken, org) -> None:
    place = global_id(NodeKind.ORGANIZATION, org.id, org.id)
    wanted = {
        "scope": {"organizationId": place},
        "period": "DAY",
        "limit": "6",
        "expectedVersion": 1,
    }
    with capture_logs():
        response = await broken.post(await broken.token(org.admin), BUDGET, input=wanted)
    body = response.json()
    assert body["data"]["budgetUpsert"]["budget"] == {"limit": "6.00", "state": None}
    assert [each["extensions"]["code"] for each in body["errors"]] == ["INTERNAL"]


async def test_a_database_that_does_not_answer_is_told_as_a_fault(api, org, tmp_path: Path) -> None:
    token = await api.token(org.admin)
    gone = Database(sqlite_url(tmp_path / "no" / "such" / "folder.db"))
    object.__setattr__(api.plane.api._handler.authenticator, "database", gone)
    with capture_logs() as logs:
        response = await api.post(token, "{ viewer { user { email } } }")
    request_id = response.headers["x-request-id"]
    assert response.status_code == 500
    assert response.json() == {
        "errors": [
            {
                "message": "Something went wrong here.",
                "extensions": {"code": "INTERNAL", "requestId": request_id},
            }
        ]
    }
    [logged] = [each for each in logs if each["log_level"] == "error"]
    assert (logged["event"], logged["request_id"]) == ("request_failed", request_id)
    await gone.aclose()


async def test_what_a_client_can_mend_is_not_masked(api, org) -> None:
    token = await api.token(org.admin)
    mistakes = {
        "{ nothing }": "Cannot query field 'nothing' on type 'Query'.",
        "{ viewer": "Syntax Error: Expected Name, found <EOF>.",
        '{ organization(slug: "acme") { keys(first: 101) { nodes { id } } } }': (
            "Must be from 1 to 100."
        ),
        "query($id: ID!) { node(id: $id) { id } }": (
            "Variable '$id' has invalid value: "
            "Expected a value of non-null type 'ID!' to be provided."
        ),
    }
    with capture_logs() as logs:
        for text, message in mistakes.items():
            [error] = (await api.post(token, text)).json()["errors"]
            assert error["message"] == message
            assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert [each for each in logs if each["log_level"] == "error"] == []
