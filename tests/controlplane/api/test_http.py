"""GraphQL over HTTP: methods, media types, bodies; every refusal with its code and request id."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import httpx
import pytest

from controlplane.api.cors import CrossOrigin
from controlplane.api.http import BODY_BYTES_MAX, EVENT_STREAM, GRAPHQL_JSON, JSON
from controlplane.api.nodes import NodeKind, global_id
from controlplane.api.operation import VARIABLES_DEPTH_MAX

VIEWER = "{ viewer { user { email } } }"
ME = {"viewer": {"user": {"email": "admin@acme.example"}}}
TEAM = """mutation($place: ID!) { teamCreate(input: {organizationId: $place, name: "Late"}) {
  team { slug } errors { code } } }"""


@pytest.fixture
def database_url(sqlite_url_of_test: str) -> str:
    """Nothing here gets as far as what differs between databases."""
    return sqlite_url_of_test


@pytest.fixture
async def send(api, org):
    """Send a request as the admin; each answer has a request id and no fault of ours."""
    token = await api.token(org.admin)

    async def sent(
        body: Any = None, *, method: str = "POST", path: str = "/graphql", **headers: str
    ) -> httpx.Response:
        given = {"authorization": f"Bearer {token}", "content-type": JSON}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = await api.client.request(
            method, path, headers=given | named, content=b"" if body is None else content
        )
        assert UUID(response.headers["x-request-id"])
        assert response.headers["cache-control"] == "no-store"
        assert response.status_code < 500
        return response

    return sent


def code_of(response: httpx.Response) -> str:
    """Read the one code of a refusal, whose request id is that of the answer."""
    body = response.json()
    assert "data" not in body
    [extensions] = {tuple(sorted(each["extensions"].items())) for each in body["errors"]}
    told = dict(extensions)
    assert told["requestId"] == response.headers["x-request-id"]
    return told["code"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"])
async def test_only_post_brings_a_document(send, method) -> None:
    response = await send({"query": VIEWER}, method=method)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    # The answer to HEAD is a head alone.
    assert method == "HEAD" or code_of(response) == "BAD_USER_INPUT"


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json;charset=utf-8",
        "application/json; charset=UTF-8",
        'application/json; charset="utf-8"',
    ],
)
async def test_json_in_utf_8_is_read(send, content_type) -> None:
    response = await send({"query": VIEWER}, content_type=content_type)
    assert (response.status_code, response.json()["data"]) == (200, ME)


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": ""},
        {"content_type": "text/plain"},
        {"content_type": "application/graphql"},
        {"content_type": "application/json; charset=latin-1"},
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": "multipart/form-data; boundary=x"},
        {"content_encoding": "gzip"},
        {"content_encoding": "br, gzip"},
    ],
)
async def test_nothing_else_is(send, headers) -> None:
    response = await send({"query": VIEWER}, **headers)
    assert (response.status_code, code_of(response)) == (415, "BAD_USER_INPUT")


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", GRAPHQL_JSON),
        ("application/*", GRAPHQL_JSON),
        ("application/json", JSON),
        ("APPLICATION/JSON", JSON),
        (f"{JSON}, {GRAPHQL_JSON}", JSON),
        (f"{JSON};q=0.5, {GRAPHQL_JSON};q=0.6", GRAPHQL_JSON),
        (f"{GRAPHQL_JSON};q=0.1, {JSON};q=0.2", JSON),
        (f"{GRAPHQL_JSON}; charset=utf-8, {JSON};q=0.9", GRAPHQL_JSON),
        (f"{GRAPHQL_JSON};q=0, {JSON}", JSON),
        (f"text/html, {JSON};q=0.1", JSON),
        (f"{GRAPHQL_JSON};q=x, {JSON};q=0.1", JSON),
        (EVENT_STREAM, EVENT_STREAM),
        ("", GRAPHQL_JSON),
    ],
)
async def test_the_client_chooses_the_media_type(send, accept, media_type) -> None:
    response = await send({"query": VIEWER}, accept=accept)
    assert response.status_code == 200
    assert response.headers["content-type"] == f"{media_type}; charset=utf-8"


@pytest.mark.parametrize(
    "accept",
    ["text/html", "text/*", "image/*", f"{JSON};q=0", f"{JSON};q=nan", f"{JSON};q=-1", ";"],
)
async def test_a_client_that_accepts_none_of_them_is_refused(send, accept) -> None:
    response = await send({"query": VIEWER}, accept=accept)
    assert (response.status_code, code_of(response)) == (406, "BAD_USER_INPUT")


NO_DOCUMENT = [
    b"",
    b" ",
    b"null",
    b"true",
    b"1",
    b'"query"',
    b"{}",
    b'{"query": null}',
    b'{"query": 1}',
    b'{"query": ["{ a }"]}',
    b'{"query": "{ viewer',
    b'{"query": "{ a }"} {"query": "{ a }"}',
    b'{"query": "{ a }", "variables": []}',
    b'{"query": "{ a }", "variables": "{}"}',
    b'{"query": "{ a }", "variables": 1}',
    b'{"query": "{ a }", "operationName": 1}',
    b'{"query": "{ a }", "extensions": []}',
    b'{"query": "{ a }", "variables": {"a": NaN}}',
    b'{"query": "{ a }", "variables": {"a": 1e}}',
    b'\xef\xbb\xbf{"query": "{ a }"}',
    b'{"query": "\xff"}',
    b'{"query": "{ a(b: \\"\\ud800\\") }", "variables": {"a": "\xed\xa0\x80"}}',
    b'{"query": "\\ud800"}',
    b'{"query": "{ a }", "variables": {"a": "\\udfff"}}',
    b'{"query": "{ a }", "variables": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    b'{"query": "{ a }", "variables": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    b'{"query": ""}',
    b'{"query": "#"}',
    b'{"query": "{"}',
    b'{"query": "{ a(b: \\"\\\\ud800\\") }"}',
]


async def test_what_is_no_request_is_refused(send) -> None:
    for raw in NO_DOCUMENT:
        response = await send(raw)
        told = (raw[:80], response.status_code, code_of(response))
        assert told == (raw[:80], 400, "BAD_USER_INPUT")


async def test_batches_are_not_answered(send) -> None:
    response = await send([{"query": VIEWER}, {"query": VIEWER}])
    assert (response.status_code, code_of(response)) == (400, "BAD_USER_INPUT")
    assert "Batches are not answered." in response.json()["errors"][0]["message"]


@pytest.mark.parametrize("depth", [VARIABLES_DEPTH_MAX, VARIABLES_DEPTH_MAX + 1, 300, 500, 900])
@pytest.mark.parametrize("ends", [('{"a":', "}"), ("[", "]")])
async def test_variables_are_nested_only_so_deep(send, depth, ends) -> None:
    begin, end = ends
    inner = depth - 1
    raw = f'{{"query": "{VIEWER}", "variables": {{"a": {begin * inner}1{end * inner}}}}}'
    response = await send(raw.encode())
    if depth <= VARIABLES_DEPTH_MAX:
        assert response.json()["data"] == ME
    else:
        assert (response.status_code, code_of(response)) == (400, "BAD_USER_INPUT")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"query": f"query a {VIEWER} query b {VIEWER}"}, 400),
        ({"query": f"query a {VIEWER} query b {VIEWER}", "operationName": "c"}, 400),
        ({"query": f"query a {VIEWER}", "operationName": "b"}, 400),
        ({"query": f"query a {VIEWER} query a {VIEWER}", "operationName": "a"}, 422),
        ({"query": f"query a {VIEWER} {VIEWER}", "operationName": "a"}, 422),
        ({"query": "query a($x: Int) { viewer { user { email } } }"}, 422),
        ({"query": "query($x: ID!) { node(id: $x) { id } }"}, 422),
        ({"query": "query($x: ID!) { node(id: $x) { id } }", "variables": {"x": {}}}, 422),
        ({"query": "query($x: ID!) { node(id: $x) { id } }", "variables": {"x": None}}, 422),
        ({"query": "query($x: Thing) { viewer { user { email } } }"}, 422),
        ({"query": "{ viewer { user { emial } } }"}, 422),
        ({"query": "{ viewer }"}, 422),
        ({"query": f"fragment f on Query {VIEWER}"}, 422),
        ({"query": "{ viewer { user { email @defer } } }"}, 422),
        ({"query": "subscription { liveSpend(organizationId: 1) { seq } }"}, 400),
    ],
)
async def test_what_cannot_be_executed_is_refused(send, body, status) -> None:
    response = await send(body)
    assert (response.status_code, code_of(response)) == (status, "BAD_USER_INPUT")
    plain = await send(body, accept=JSON)
    is_subscription = body["query"].startswith("subscription")
    # A client of plain JSON gets 200 for a document that cannot be executed, as the draft asks.
    if status == 422:
        assert plain.status_code == 200
    elif is_subscription:
        assert plain.status_code == 400


async def test_one_of_several_operations_is_chosen_by_name(send) -> None:
    two = f"query a {VIEWER} query b {{ viewer {{ user {{ isOperator }} }} }}"
    response = await send({"query": two, "operationName": "b"})
    assert response.json()["data"] == {"viewer": {"user": {"isOperator": False}}}


async def test_errors_give_no_hints_about_the_schema(send) -> None:
    response = await send({"query": "{ viewer { user { emial } } }"})
    [error] = response.json()["errors"]
    assert error["message"] == "Cannot query field 'emial' on type 'User'."


@pytest.mark.parametrize("size", [BODY_BYTES_MAX, BODY_BYTES_MAX + 1])
@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_body_has_a_greatest_size(api, org, size, is_declared) -> None:
    raw = json.dumps({"query": VIEWER}).encode()
    raw += b" " * (size - len(raw))
    headers = {"authorization": f"Bearer {await api.token(org.admin)}", "content-type": JSON}

    async def parts():
        for start in range(0, size, 100_000):
            yield raw[start : start + 100_000]

    response = await api.client.post(
        "/graphql", headers=headers, content=raw if is_declared else parts()
    )
    if size <= BODY_BYTES_MAX:
        assert response.json()["data"] == ME
    else:
        assert (response.status_code, code_of(response)) == (413, "BAD_USER_INPUT")


@pytest.mark.parametrize("length", ["²", "-1", "x", "9" * 5_000])
async def test_a_declared_size_that_is_no_number_harms_nothing(send, length) -> None:
    response = await send({"query": VIEWER}, content_length=length.encode("latin-1"))
    assert response.status_code in {200, 413}


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic abc",
        "cpat_x",
        "Bearer cpat_x",
        "Bearer ck_live_x",
        "Bearer é",
    ],
)
async def test_who_does_not_say_who_it_is_learns_nothing(send, authorization) -> None:
    response = await send({"query": "{ nothing }"}, authorization=authorization.encode("latin-1"))
    assert (response.status_code, code_of(response)) == (401, "UNAUTHENTICATED")
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["errors"][0]["message"].startswith("Send an access token")


async def test_a_change_by_get_is_not_made(send, org, published) -> None:
    response = await send(method="GET", path=f"/graphql?{urlencode({'query': TEAM})}")
    assert (response.status_code, published) == (405, [])


async def test_a_change_is_made_by_post_alone(send, org, published) -> None:
    place = global_id(NodeKind.ORGANIZATION, org.id, org.id)
    response = await send({"query": TEAM, "variables": {"place": place}})
    assert response.json()["data"]["teamCreate"]["team"] == {"slug": "late"}


@pytest.mark.parametrize(
    "query", ["documentId=a&" * 20, "documentId=%00", "documentId=%ff%fe", "documentId"]
)
async def test_a_get_that_names_nothing_is_refused(send, query) -> None:
    response = await send(method="GET", path=f"/graphql?{query}")
    assert response.status_code in {400, 405}
    assert code_of(response) == "BAD_USER_INPUT"


ORIGIN = "https://dashboard.example.org"


@pytest.fixture
def api_origins(api) -> None:
    object.__setattr__(api.plane.api._handler, "cross_origin", CrossOrigin(frozenset({ORIGIN})))


async def test_a_page_of_an_allowed_origin_may_read_answers(send, api_origins) -> None:
    asked = await send(
        method="OPTIONS",
        origin=ORIGIN,
        access_control_request_method="POST",
        authorization="",
    )
    assert (asked.status_code, asked.content) == (204, b"")
    assert asked.headers["access-control-allow-origin"] == ORIGIN
    assert asked.headers["access-control-allow-methods"] == "GET, POST"
    assert asked.headers["access-control-allow-headers"] == "authorization, content-type, accept"
    assert "access-control-allow-credentials" not in asked.headers
    for answer in (
        await send({"query": VIEWER}, origin=ORIGIN),
        await send({"query": "{"}, origin=ORIGIN),
        await send({"query": VIEWER}, origin=ORIGIN, authorization=""),
        await send({"query": VIEWER}, origin=ORIGIN, accept=EVENT_STREAM),
    ):
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["vary"] == "origin"
        assert "ratelimit" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", f"{ORIGIN}.evil.example", ORIGIN.upper(), "null", ""]
)
async def test_a_page_of_another_origin_may_not(send, api_origins, origin) -> None:
    asked = await send(method="OPTIONS", origin=origin, access_control_request_method="POST")
    answered = await send({"query": VIEWER}, origin=origin)
    for answer in (asked, answered):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert answer.headers["vary"] == "origin"
