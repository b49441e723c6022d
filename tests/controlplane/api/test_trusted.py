"""Trusted documents: a manifest that is checked at start, and clients that name what they want."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from litestar import Litestar

from controlplane.api import trusted
from controlplane.api.fanout import FanOut
from controlplane.api.http import EVENT_STREAM, JSON
from controlplane.api.nodes import NodeKind, global_id
from controlplane.api.schema import make_schema
from controlplane.api.trusted import load_trusted_documents
from controlplane.routes import ControlPlane
from controlplane.settings import SettingsError

SCHEMA = make_schema()._schema
VIEWER = "query Me { viewer { user { email } } }"
NODE = "query Find($id: ID!) { node(id: $id) { id } }"
TEAM = """mutation($place: ID!) { teamCreate(input: {organizationId: $place, name: "Late"}) {
  team { slug } errors { code } } }"""
LIVE = "subscription($place: ID!) { liveSpend(organizationId: $place) { seq } }"
DOCUMENTS = {
    sha256(VIEWER.encode()).hexdigest(): VIEWER,
    f"sha256:{sha256(NODE.encode()).hexdigest()}": NODE,
    "late-team": TEAM,
    "live": LIVE,
}
ME = {"viewer": {"user": {"email": "admin@acme.example"}}}

Serve = Callable[..., AbstractAsyncContextManager["Served"]]


@pytest.fixture
def database_url(sqlite_url_of_test: str) -> str:
    return sqlite_url_of_test


class Served:
    """A control plane with trusted documents and a client of it."""

    def __init__(self, plane: ControlPlane, client: httpx.AsyncClient) -> None:
        self.plane = plane
        self.client = client

    async def post(self, body: dict[str, Any], accept: str = "*/*") -> httpx.Response:
        return await self.client.post("/graphql", json=body, headers={"accept": accept})

    async def get(self, accept: str = "*/*", **parameters: str) -> httpx.Response:
        return await self.client.get(
            f"/graphql?{urlencode(parameters)}", headers={"accept": accept}
        )


@pytest.fixture
def serve(api, org, tmp_path: Path) -> Serve:
    """Serve with a manifest; the client is the admin's."""

    @asynccontextmanager
    async def serving(*, only: bool) -> AsyncIterator[Served]:
        path = tmp_path / "documents.json"
        path.write_text(json.dumps(DOCUMENTS))
        settings = replace(
            api.plane.installation.settings,
            trusted_documents_file=path,
            trusted_documents_only=only,
        )
        plane = ControlPlane(
            settings,
            api.plane.installation.clock,
            api.plane.installation.ids,
            api.plane.database,
            api.plane.events,
            api.plane.backend.live,
        )
        transport = httpx.ASGITransport(Litestar(list(plane.routes), openapi_config=None))
        headers = {"authorization": f"Bearer {await api.token(org.admin)}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test", headers=headers
        ) as client:
            yield Served(plane, client)
            await plane.stop()

    return serving


MANIFESTS = [
    ("", "truncated"),
    ("[]", "Expected `object`"),
    ('{"a": 1}', "Expected `str`"),
    ('{"a": "{ nothing }"}', "the document 'a' is not valid: Cannot query field 'nothing'"),
    ('{"a": "{"}', "the document 'a' is not valid: Syntax Error"),
    ('{"a": ""}', "the document 'a' is not valid: Syntax Error"),
    ('{"a": "query($x: Int) { viewer { user { email } } }"}', "never used"),
    ("\ud800", ""),
]


@pytest.mark.parametrize(("text", "says"), MANIFESTS)
def test_a_manifest_that_cannot_be_used_is_told_at_start(tmp_path, text, says) -> None:
    path = tmp_path / "documents.json"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(SettingsError, match=f"{path}: .*"):
        load_trusted_documents(path, SCHEMA, only=False)
    with pytest.raises(SettingsError) as error:
        load_trusted_documents(path, SCHEMA, only=True)
    assert says in str(error.value)


def test_a_manifest_that_is_not_there_is_told_at_start(tmp_path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(SettingsError, match=str(path)):
            load_trusted_documents(path, SCHEMA, only=False)
    with pytest.raises(SettingsError, match="TRUSTED_DOCUMENTS_FILE"):
        load_trusted_documents(None, SCHEMA, only=True)


def test_a_manifest_has_a_greatest_size_and_number(tmp_path, monkeypatch) -> None:
    path = tmp_path / "documents.json"
    path.write_text(json.dumps({"a": VIEWER, "b": NODE}))
    monkeypatch.setattr(trusted, "TRUSTED_DOCUMENTS_MAX", 2)
    assert len(load_trusted_documents(path, SCHEMA, only=False).by_id) == 2
    monkeypatch.setattr(trusted, "TRUSTED_DOCUMENTS_MAX", 1)
    with pytest.raises(SettingsError, match="at most 1 documents"):
        load_trusted_documents(path, SCHEMA, only=False)
    monkeypatch.setattr(trusted, "TRUSTED_FILE_BYTES_MAX", path.stat().st_size - 1)
    with pytest.raises(SettingsError, match="bytes"):
        load_trusted_documents(path, SCHEMA, only=False)


def test_one_id_for_two_documents_is_told_at_start(tmp_path) -> None:
    path = tmp_path / "documents.json"
    path.write_text(json.dumps({"a": VIEWER, "sha256:a": NODE}))
    with pytest.raises(SettingsError, match="'a'"):
        load_trusted_documents(path, SCHEMA, only=False)


@pytest.mark.parametrize("only", [True, False])
async def test_a_document_is_found_by_its_id_however_it_is_named(serve, only) -> None:
    name = sha256(VIEWER.encode()).hexdigest()
    named = [
        {"documentId": name},
        {"documentId": f"sha256:{name}"},
        {"documentId": name, "operationName": "Me"},
        {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": name}}},
    ]
    async with serve(only=only) as served:
        for body in named:
            assert (await served.post(body)).json()["data"] == ME
        variables = {"id": "x"}
        node = f"sha256:{sha256(NODE.encode()).hexdigest()}"
        found = await served.get(documentId=node, variables=json.dumps(variables))
        assert found.json()["data"] == {"node": None}
        assert found.headers["ratelimit-policy"]


@pytest.mark.parametrize(
    "body",
    [
        {"documentId": "unknown"},
        {"documentId": ""},
        {"documentId": "sha256:"},
        {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "unknown"}}},
        {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": 1}}},
        {"extensions": {"persistedQuery": "x"}},
        {"extensions": {}},
    ],
)
async def test_an_id_that_is_not_known_is_refused(serve, body) -> None:
    async with serve(only=False) as served:
        response = await served.post(body)
        [error] = response.json()["errors"]
        assert (response.status_code, error["extensions"]["code"]) == (400, "BAD_USER_INPUT")


INTROSPECTION = "{ __schema { queryType { name } } }"


async def test_where_only_those_are_answered_no_other_document_is(serve, published) -> None:
    async with serve(only=True) as served:
        for text in (INTROSPECTION, "{ viewer { user { email } } }", f"{VIEWER} ", "{"):
            for accept in ("*/*", JSON, EVENT_STREAM):
                response = await served.post({"query": text}, accept)
                [error] = response.json()["errors"]
                told = (response.status_code, error["extensions"]["code"])
                assert told == (403, "FORBIDDEN"), (text, accept)
        # The text of a trusted document is as good as its id.
        assert (await served.post({"query": VIEWER})).json()["data"] == ME
    assert published == []


async def test_elsewhere_the_schema_may_be_asked_for(serve) -> None:
    async with serve(only=False) as served:
        found = (await served.post({"query": INTROSPECTION})).json()
        assert found["data"] == {"__schema": {"queryType": {"name": "Query"}}}


async def test_get_answers_queries_alone(serve, org, published) -> None:
    place = global_id(NodeKind.ORGANIZATION, org.id, org.id)
    variables = json.dumps({"place": place})
    async with serve(only=False) as served:
        for name in ("late-team", "live"):
            for accept in ("*/*", EVENT_STREAM):
                response = await served.get(accept, documentId=name, variables=variables)
                [error] = response.json()["errors"]
                assert error["message"] == "GET answers queries only; use POST."
                assert response.status_code == 400
        assert published == []
        made = await served.post({"documentId": "late-team", "variables": {"place": place}})
        assert made.json()["data"]["teamCreate"]["team"] == {"slug": "late"}


@pytest.mark.parametrize("variables", ["[]", "1", "null", "{", '"x"', "{" + '"a":{' * 5000, "é"])
async def test_variables_of_a_get_are_one_object(serve, variables) -> None:
    async with serve(only=False) as served:
        response = await served.get(documentId="live", variables=variables)
        assert response.status_code == 400
        [error] = response.json()["errors"]
        assert error["message"] == "`variables` is one JSON object."


async def test_a_get_streams_its_one_answer(serve) -> None:
    async with serve(only=True) as served:
        response = await served.get(EVENT_STREAM, documentId=sha256(VIEWER.encode()).hexdigest())
        assert response.headers["content-type"] == f"{EVENT_STREAM}; charset=utf-8"
        _comment, event, end, _ = response.text.split("\n\n")
        name, data = event.split("\n")
        assert name == "event: next"
        assert json.loads(data.removeprefix("data: "))["data"] == ME
        assert end == "event: complete\ndata: "
        fan_out: FanOut = served.plane.api.fan_out
        assert fan_out.sources_count == 0
