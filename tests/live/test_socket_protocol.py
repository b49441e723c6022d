"""graphql-transport-ws, message by message: what is answered, what closes the socket and how."""

from __future__ import annotations

import json

import pytest
from websockets.exceptions import InvalidStatus

from controlplane.api import sessions, socket
from controlplane.api.socket import ID_LENGTH_MAX, MESSAGE_BYTES_MAX, SUBSCRIPTIONS_MAX
from tests.live.conftest import LIVE, place_of

pytestmark = pytest.mark.usefixtures("insides")


def test_a_subscription_is_acknowledged_followed_and_completed(stack, dial, insides) -> None:
    with dial() as client:
        assert client.connection.subprotocol == "graphql-transport-ws"
        client.init(stack.admin_token)
        client.subscribe("a", place=place_of(stack))
        message = client.next()
        assert (message["id"], message["type"]) == ("a", "next")
        assert message["payload"]["data"]["liveSpend"]["seq"] == "1"
        insides.wait_for((1, 1, 1, 1))
        client.send({"id": "a", "type": "complete"})
        insides.wait_for((0, 0, 1, 1))


@pytest.mark.parametrize("protocols", [(), ("graphql-ws",), ("GRAPHQL-TRANSPORT-WS",), ("mqtt",)])
def test_other_subprotocols_are_closed(dial, protocols) -> None:
    with dial(protocols=protocols) as client:
        assert client.connection.subprotocol is None
        assert client.close_code() == 4406


def test_the_right_one_of_several_subprotocols_is_taken(stack, dial) -> None:
    with dial(protocols=("graphql-ws", "graphql-transport-ws")) as client:
        assert client.connection.subprotocol == "graphql-transport-ws"
        client.init(stack.admin_token)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1"])
def test_a_page_of_another_origin_is_refused_at_the_handshake(dial, origin) -> None:
    with pytest.raises(InvalidStatus) as refused, dial(origin=origin):
        pytest.fail("it was let in")
    assert refused.value.response.status_code == 403


def test_a_page_of_the_same_origin_is_not(stack, dial) -> None:
    with dial(origin=stack.address) as client:
        client.init(stack.admin_token)


def test_who_subscribes_before_it_said_who_it_is_is_closed(stack, dial, insides) -> None:
    with dial() as client:
        client.subscribe("a", place=place_of(stack))
        assert client.close_code() == 4401
    insides.wait_for((0, 0, 0, 0))


def test_saying_it_twice_closes(stack, dial) -> None:
    with dial() as client:
        client.init(stack.admin_token)
        client.send({"type": "connection_init"})
        assert client.close_code() == 4429


def test_saying_it_late_closes(dial, monkeypatch) -> None:
    monkeypatch.setattr(socket, "INIT_TIMEOUT_S", 0.05)
    with dial() as client:
        client.send({"type": "ping"})
        assert client.next() == {"type": "pong"}
        assert client.close_code() == 4408


@pytest.mark.parametrize(
    "payload",
    [
        None,
        {},
        [],
        "Bearer x",
        {"authorization": None},
        {"authorization": ["Bearer x"]},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer cpat_unknown"},
        {"authorization": "Basic {token}"},
        {"authorization": "{token}"},
        {"token": "Bearer {token}"},
    ],
)
def test_who_says_it_wrongly_is_closed(stack, dial, payload) -> None:
    text = json.dumps({"type": "connection_init", "payload": payload})
    with dial() as client:
        client.send(text.replace("{token}", stack.admin_token))
        assert client.close_code() == 4403


def test_a_key_is_no_token(stack, dial) -> None:
    _, secret = stack.key()
    with dial() as client:
        client.send({"type": "connection_init", "payload": {"authorization": f"Bearer {secret}"}})
        assert client.close_code() == 4403


@pytest.mark.parametrize("name", ["authorization", "Authorization", "AUTHORIZATION"])
def test_the_name_of_the_field_is_read_as_that_of_a_header(stack, dial, name) -> None:
    with dial() as client:
        client.send({"type": "connection_init", "payload": {name: f"bearer {stack.admin_token}"}})
        assert client.next() == {"type": "connection_ack"}


INVALID = [
    "",
    "null",
    "1",
    '"ping"',
    "[]",
    '[{"type": "ping"}]',
    "{}",
    "{",
    '{"type": null}',
    '{"type": "start"}',
    '{"type": "next", "id": "a"}',
    '{"type": "PING"}',
    '{"type": "ping", "id": 1}',
    '{"type": "ping"} {"type": "ping"}',
    '{"type": "ping", "payload": "\\ud800"}',
    "[" * 60_000,
    '{"type": "ping", "payload": ' + "[" * 30_000 + "]" * 30_000 + "}",
    b'{"type": "ping"}',
]
WITHOUT_INIT = [
    '{"type": "subscribe"}',
    '{"type": "subscribe", "id": "a"}',
    '{"type": "subscribe", "id": "a", "payload": null}',
    '{"type": "subscribe", "id": "a", "payload": []}',
    '{"type": "subscribe", "id": "a", "payload": {"query": 1}}',
    '{"type": "subscribe", "id": "a", "payload": {"query": "{a}", "variables": []}}',
    '{"type": "subscribe", "payload": {"query": "{a}"}}',
    '{"type": "subscribe", "id": "", "payload": {"query": "{a}"}}',
    '{"type": "subscribe", "id": null, "payload": {"query": "{a}"}}',
    json.dumps({"type": "subscribe", "id": "x" * (ID_LENGTH_MAX + 1), "payload": {"query": "{a}"}}),
    '{"type": "complete"}',
    '{"type": "complete", "id": ""}',
]


def test_what_is_no_message_closes(stack, dial) -> None:
    for message in (*INVALID, *WITHOUT_INIT):
        with dial() as client:
            client.init(stack.admin_token)
            client.send(message)
            assert (message[:60], client.close_code()) == (message[:60], 4400)


def test_it_closes_before_the_first_message_too(dial) -> None:
    for message in INVALID:
        with dial() as client:
            client.send(message)
            assert (message[:60], client.close_code()) == (message[:60], 4400)


def test_a_message_has_a_greatest_size(stack, dial) -> None:
    for letter, size in (("x", MESSAGE_BYTES_MAX), ("é", MESSAGE_BYTES_MAX)):
        head, end = '{"type": "ping", "payload": "', '"}'
        room = (size - len(head) - len(end)) // len(letter.encode())
        fits = head + letter * room + end
        fits += " " * (size - len(fits.encode()))
        with dial() as client:
            client.init(stack.admin_token)
            client.send(fits)
            assert client.next() == {"type": "pong"}
            client.send(fits + " ")
            assert client.close_code() == 1009


def test_an_id_is_used_once_at_a_time(stack, dial, insides) -> None:
    with dial() as client:
        client.init(stack.admin_token)
        for _ in range(2):
            client.subscribe("x" * ID_LENGTH_MAX, place=place_of(stack))
            assert client.next()["type"] == "next"
            client.send({"type": "complete", "id": "x" * ID_LENGTH_MAX})
        client.send({"type": "complete", "id": "never used"})
        client.subscribe("a", place=place_of(stack))
        assert client.next()["id"] == "a"
        client.subscribe("a", place=place_of(stack))
        assert client.close_code() == 4409
    insides.wait_for((0, 0, 0, 0))


def test_the_reason_of_a_close_fits_into_its_frame(stack, dial) -> None:
    name = "\U0001f4b8" * ID_LENGTH_MAX
    with dial() as client:
        client.init(stack.admin_token)
        for _ in range(2):
            client.subscribe(name, place=place_of(stack))
        assert client.close_code() == 4409
        reason = client.connection.close_reason
        assert reason.startswith("Subscriber for \U0001f4b8")
        assert len(reason.encode()) <= 123


def test_a_socket_has_so_many_subscriptions(stack, dial, insides) -> None:
    with dial() as client:
        client.init(stack.admin_token)
        for number in range(SUBSCRIPTIONS_MAX):
            client.subscribe(str(number), place=place_of(stack))
        told = {client.next()["id"] for _ in range(SUBSCRIPTIONS_MAX)}
        assert told == {str(number) for number in range(SUBSCRIPTIONS_MAX)}
        client.subscribe("more", place=place_of(stack))
        refused = client.next()
        assert (refused["id"], refused["type"]) == ("more", "error")
        [error] = refused["payload"]
        assert error["message"] == "At most 10 subscriptions on a socket."
        assert error["extensions"]["requestId"]
        # All of them ask the same.
        insides.wait_for((1, 1, 1, 1))
        client.send({"type": "complete", "id": "0"})
        client.subscribe("more", place=place_of(stack))
        assert (client.next()["id"], insides.counts()) == ("more", (1, 1, 1, 1))


REFUSED = [
    ({"query": "{ viewer { user { email } } }"}, "Only subscriptions are answered on a socket"),
    (
        {"query": 'mutation { virtualKeyRevoke(input: {keyId: "x"}) { errors { code } } }'},
        "Only subscriptions are answered on a socket",
    ),
    ({"query": "subscription {"}, "Syntax Error"),
    ({"query": ""}, "Syntax Error"),
    ({"query": None}, "Send a document as `query`."),
    ({}, "Send a document as `query`."),
    ({"query": "subscription { nothing }"}, "Cannot query field 'nothing'"),
    ({"documentId": "unknown"}, "There is no trusted document with this id."),
    ({"query": LIVE, "operationName": "Other"}, "Name one operation"),
    ({"query": LIVE, "variables": {"place": "\0"}}, "The character U+0000"),
    ({"query": LIVE}, "Variable '$place'"),
    ({"query": LIVE, "variables": {"place": {}}}, "Variable '$place'"),
    ({"query": "subscription { liveSpend(organizationId: 1) @skip(if: true) { seq } }"}, ""),
]


def test_what_cannot_be_subscribed_to_is_told_and_the_socket_stays(stack, dial, insides) -> None:
    with dial() as client:
        client.init(stack.admin_token)
        for payload, says in REFUSED:
            client.send({"id": "a", "type": "subscribe", "payload": payload})
            message = client.next()
            assert (message["type"], message["id"]) == ("error", "a"), payload
            [error] = message["payload"]
            assert error["message"].startswith(says), (payload, error)
            assert error["extensions"]["code"] == "BAD_USER_INPUT"
            assert error["extensions"]["requestId"]
        insides.wait_for((0, 0, 1, 1))
        client.subscribe("a", place=place_of(stack))
        assert client.next()["type"] == "next"


def test_too_much_is_refused_by_points(stack, dial, monkeypatch) -> None:
    deep = "subscription { liveSpend(organizationId: 1) { scopes { " + "a { " * 20 + "}" * 23
    with dial() as client:
        client.init(stack.admin_token)
        client.subscribe("a", query=deep)
        [error] = client.next()["payload"]
        assert error["extensions"]["code"] == "QUERY_TOO_EXPENSIVE"
        monkeypatch.setattr(stack.comptroller.control.api._handler.desk.buckets, "_points_max", 1)
        client.subscribe("a", place=place_of(stack))
        [error] = client.next()["payload"]
        assert error["extensions"]["code"] == "RATE_LIMITED"


def test_pings_are_answered_and_pongs_heard(stack, dial, monkeypatch) -> None:
    with dial() as client:
        for _ in range(3):
            client.send({"type": "ping", "payload": {"at": 1}})
            client.send({"type": "pong"})
            assert client.next() == {"type": "pong"}
        monkeypatch.setattr(socket, "PING_EVERY_S", 0.02)
        client.init(stack.admin_token)
        assert client.next() == {"type": "ping"}
        client.send({"type": "pong"})
        assert client.next() == {"type": "ping"}


def test_a_caller_has_so_many_sockets(stack, dial, monkeypatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_PER_USER_MAX", 1)
    with dial() as first, dial() as second:
        first.init(stack.admin_token)
        authorization = f"Bearer {stack.admin_token}"
        second.send({"type": "connection_init", "payload": {"authorization": authorization}})
        assert second.close_code() == 1013


def test_a_client_that_vanishes_leaves_nothing_behind(stack, dial, insides) -> None:
    with dial() as client:
        client.init(stack.admin_token)
        for name in "abc":
            client.subscribe(name, place=place_of(stack))
            client.next()
        insides.wait_for((1, 1, 1, 1))
        # No closing handshake: the cable is cut.
        client.connection.socket.shutdown(2)
        insides.wait_for((0, 0, 0, 0))


def test_trusted_documents_are_found_by_their_id(stack, dial, trusted_only) -> None:
    trusted_only({"live": LIVE})
    variables = {"place": place_of(stack)}
    with dial() as client:
        client.init(stack.admin_token)
        for payload in ({"documentId": "live"}, {"documentId": "sha256:live"}, {"query": LIVE}):
            client.send(
                {"id": "a", "type": "subscribe", "payload": payload | {"variables": variables}}
            )
            assert client.next()["payload"]["data"]["liveSpend"]["seq"] == "1"
            client.send({"id": "a", "type": "complete"})
        client.subscribe("a", query=f"{LIVE} ", **variables)
        message = client.next()
        assert message["type"] == "error"
        assert message["payload"][0]["extensions"]["code"] == "FORBIDDEN"


def test_nobody_sees_another_organization(stack, other, dial, insides) -> None:
    with dial() as client:
        client.init(stack.admin_token)
        for place in (place_of(other), "x"):
            client.subscribe("a", place=place)
            message = client.next()
            assert message["payload"]["data"] is None
            [error] = message["payload"]["errors"]
            assert error["extensions"]["code"] == "NOT_FOUND"
            assert error["message"] == "There is no such organization."
            assert client.next() == {"id": "a", "type": "complete"}
        insides.wait_for((0, 0, 1, 1))
