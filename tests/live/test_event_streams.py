"""Server-sent events over the real server: framing, ends, and what is left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from controlplane.api import sessions, sse
from tests.live.conftest import LIVE, TIMEOUT_S, place_of

pytestmark = pytest.mark.usefixtures("insides")

VIEWER = "{ viewer { memberships { role } } }"
ADMIN = {"viewer": {"memberships": [{"role": "ADMIN"}]}}


class Stream:
    """An answer that is read event by event."""

    def __init__(self, answer: httpx.Response) -> None:
        self.status = answer.status_code
        self.headers = answer.headers
        self._lines = answer.iter_lines()

    def next(self) -> tuple[str, Any]:
        """Read an event, or a comment; gives its name and what it says."""
        part = []
        while line := next(self._lines):
            part.append(line)
        if part == [":"]:
            return ":", None
        name, data = part
        text = data.removeprefix("data: ")
        return name.removeprefix("event: "), json.loads(text) if text else None

    def rest(self) -> list[str]:
        return list(self._lines)


@pytest.fixture
def stream(stack):
    """Post a document and read the answer as it comes."""

    @contextmanager
    def opened(query: str = LIVE, token: str = "", **variables: Any) -> Iterator[Stream]:
        headers = {
            "authorization": f"Bearer {token or stack.admin_token}",
            "accept": "text/event-stream",
        }
        body = {"query": query, "variables": variables}
        with (
            httpx.Client(timeout=TIMEOUT_S) as client,
            client.stream("POST", f"{stack.address}/graphql", json=body, headers=headers) as answer,
        ):
            yield Stream(answer)

    return opened


def test_the_head_arrives_before_there_is_anything_to_say(stack, stream, insides) -> None:
    nothing = "subscription($place: ID!) { requestLog(organizationId: $place) { seq } }"
    with stream(nothing, place=place_of(stack)) as events:
        assert events.status == 200
        assert events.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert events.headers["cache-control"] == "no-store"
        assert events.headers["x-accel-buffering"] == "no"
        assert events.headers["x-request-id"]
        assert events.headers["ratelimit"].startswith('"points";r=')
        assert events.headers["ratelimit-policy"].startswith('"points";q=')
        assert events.next() == (":", None)
        insides.wait_for((1, 1, 1, 0))
    insides.wait_for((0, 0, 0, 0))


def test_answers_come_as_events(stack, stream, insides) -> None:
    with stream(place=place_of(stack)) as events:
        assert events.next() == (":", None)
        name, told = events.next()
        assert name == "next"
        [scope] = told["data"]["liveSpend"]["scopes"]
        assert scope["scope"] == {"kind": "ORGANIZATION", "id": place_of(stack)}
        insides.wait_for((1, 1, 1, 0))
    # The client has gone without a word.
    insides.wait_for((0, 0, 0, 0))


@pytest.mark.parametrize(
    "query", [VIEWER, 'mutation { virtualKeyRevoke(input: {keyId: "x"}) { errors { code } } }']
)
def test_queries_and_changes_are_streams_of_one_event(stream, insides, query) -> None:
    with stream(query) as events:
        assert events.next() == (":", None)
        name, told = events.next()
        assert name == "next"
        assert told["extensions"]["cost"]["requested"] > 0
        if query == VIEWER:
            assert told["data"] == ADMIN
        else:
            assert told["data"] == {"virtualKeyRevoke": {"errors": [{"code": "NOT_FOUND"}]}}
        assert events.next() == ("complete", None)
        assert events.rest() == []
    insides.wait_for((0, 0, 0, 0))


def test_what_is_silent_is_kept_alive(stack, stream, monkeypatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.02)
    nothing = "subscription($place: ID!) { requestLog(organizationId: $place) { seq } }"
    with stream(nothing, place=place_of(stack)) as events:
        assert [events.next() for _ in range(4)] == [(":", None)] * 4


def test_another_organization_is_not_found(stack, other, stream, insides) -> None:
    for place in (place_of(other), "x"):
        with stream(place=place) as events:
            assert events.next() == (":", None)
            name, told = events.next()
            [error] = told["errors"]
            assert (name, told["data"]) == ("next", None)
            assert error["message"] == "There is no such organization."
            assert error["extensions"]["code"] == "NOT_FOUND"
            assert events.next() == ("complete", None)
            assert events.rest() == []
    insides.wait_for((0, 0, 0, 0))


REFUSED = [
    ("subscription {", 400, "BAD_USER_INPUT"),
    ("subscription { nothing }", 422, "BAD_USER_INPUT"),
    ("subscription { a: __typename }", 422, "BAD_USER_INPUT"),
]


def test_what_cannot_be_executed_is_no_stream(stack, stream, insides) -> None:
    for query, status, code in REFUSED:
        with stream(query) as events:
            assert (events.status, events.headers["content-type"]) == (
                status,
                "application/graphql-response+json; charset=utf-8",
            )
            [error] = json.loads("".join(events.rest()))["errors"]
            assert error["extensions"]["code"] == code
    with stream(token="cpat_x") as events:
        assert events.status == 401
    insides.wait_for((0, 0, 0, 0))


def test_variables_that_do_not_fit_are_the_only_event(stream, insides) -> None:
    with stream() as events:
        assert events.next() == (":", None)
        name, told = events.next()
        assert name == "next"
        assert [each["extensions"]["code"] for each in told["errors"]] == ["BAD_USER_INPUT"]
        assert events.next() == ("complete", None)


def test_a_caller_has_so_many_streams(stack, stream, insides, monkeypatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_PER_USER_MAX", 1)
    with stream(place=place_of(stack)) as events:
        events.next()
        with stream(place=place_of(stack)) as refused:
            assert refused.status == 503
        insides.wait_for((1, 1, 1, 0))


def test_only_trusted_documents_are_streamed_where_only_those_are(
    stack, stream, trusted_only
) -> None:
    trusted_only({"live": LIVE})
    with stream(place=place_of(stack)) as events:
        assert [events.next()[0] for _ in range(2)] == [":", "next"]
    with stream(f"{LIVE} ", place=place_of(stack)) as refused:
        assert refused.status == 403


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_shows_events_as_they_come(stack, insides) -> None:
    body = json.dumps({"query": LIVE, "variables": {"place": place_of(stack)}})
    command = ["curl", "-sN", "-H", "accept: text/event-stream"]
    command += ["-H", f"authorization: Bearer {stack.admin_token}"]
    command += ["-H", "content-type: application/json", "-d", body, f"{stack.address}/graphql"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout is not None
        lines = [curl.stdout.readline() for _ in range(4)]
        assert lines[:3] == [":\n", "\n", "event: next\n"]
        assert json.loads(lines[3].removeprefix("data: "))["data"]["liveSpend"]["seq"] == "1"
        insides.wait_for((1, 1, 1, 0))
        curl.kill()
    insides.wait_for((0, 0, 0, 0))
