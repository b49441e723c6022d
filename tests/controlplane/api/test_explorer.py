"""GraphiQL is served whole, from our own files, under headers that let nothing else in."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from hashlib import sha256

import httpx
import pytest
from graphql import parse, validate
from litestar import Litestar

from controlplane.api.explorer import (
    ASSETS_FOLDER,
    ASSETS_PATH,
    OPERATIONS_FOLDER,
    explorer_routes,
    read_manifest,
    read_operations,
)
from controlplane.api.schema import SDL_PATH, make_schema

POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self'; "
    "style-src 'self' 'unsafe-inline'; font-src 'self' data:; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
NOWHERE = [
    "/graphiql/nothing",
    f"{ASSETS_PATH}/",
    f"{ASSETS_PATH}/manifest.json",
    f"{ASSETS_PATH}/../explorer.py",
    f"{ASSETS_PATH}/..%2F..%2Fexplorer.py",
    f"{ASSETS_PATH}/%2e%2e/operations/01-who-am-i.graphql",
    f"{ASSETS_PATH}/..%5C..%5Cexplorer.py",
    f"{ASSETS_PATH}//etc/passwd",
    f"{ASSETS_PATH}/%00",
]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = Litestar(route_handlers=list(explorer_routes()), openapi_config=None)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened


def test_the_committed_assets_are_those_that_were_built() -> None:
    manifest = read_manifest()
    found = {
        path.name: sha256(path.read_bytes()).hexdigest()
        for path in ASSETS_FOLDER.iterdir()
        if path.name != "manifest.json"
    }
    assert found == manifest.files
    assert {manifest.page, manifest.style, *manifest.workers.values()} <= set(found)


def test_every_bundled_package_comes_with_its_licence() -> None:
    text = (ASSETS_FOLDER / "LICENSES.txt").read_text()
    for name in ("graphiql 5.4.0 (MIT)", "monaco-editor 0.52.2 (MIT)", "react 19.3.1 (MIT)"):
        assert f"\n{name}\n" in text


async def test_the_page_names_only_files_that_are_served(client) -> None:
    page = await client.get("/graphiql")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    addresses = re.findall(r'(?:src|href|data-[a-z-]+)="([^"]+)"', page.text)
    addresses.remove("data:,")
    assert len(addresses) == 7
    for address in addresses:
        answer = await client.get(address)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["etag"] == f'"{sha256(answer.content).hexdigest()}"'
    assert "//" not in page.text.replace("<!--", "")


@pytest.mark.parametrize("path", ["/graphiql", f"{ASSETS_PATH}/{read_manifest().page}", NOWHERE[1]])
async def test_every_answer_lets_nothing_else_in(client, path) -> None:
    headers = (await client.get(path)).headers
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/graphiql", f"{ASSETS_PATH}/{read_manifest().style}"])
async def test_what_a_browser_has_is_not_sent_again(client, path) -> None:
    first = await client.get(path)
    tag = first.headers["etag"]
    for sent in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await client.get(path, headers={"if-none-match": sent})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        assert again.headers["cache-control"] == first.headers["cache-control"]
    changed = await client.get(path, headers={"if-none-match": '"other"'})
    assert (changed.status_code, changed.content) == (200, first.content)


async def test_the_page_is_asked_for_each_time(client) -> None:
    assert (await client.get("/graphiql")).headers["cache-control"] == "no-cache"


async def test_head_says_what_get_would_send(client) -> None:
    whole, head = await client.get("/graphiql"), await client.head("/graphiql")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == whole.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/graphiql", f"{ASSETS_PATH}/{read_manifest().page}"])
async def test_other_methods_are_refused(client, method, path) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", NOWHERE)
async def test_nothing_else_is_found(client, path) -> None:
    assert (await client.get(path)).status_code == 404


async def test_the_schema_is_served_without_a_token(client) -> None:
    page = (await client.get("/graphiql")).text
    [address] = re.findall(r'data-schema="([^"]+)"', page)
    assert (await client.get(address)).text == SDL_PATH.read_text()


def test_there_are_ten_operations_and_each_has_one_name() -> None:
    operations = read_operations()
    names = [parse(each.query).definitions[0].name.value for each in operations]
    assert names == [
        "WhoAmI",
        "TeamsAndMembers",
        "CreateKey",
        "RotateKey",
        "SetBudget",
        "BudgetsWithLiveState",
        "UsageByTeamAndModel",
        "Requests",
        "LiveSpend",
        "RequestLog",
    ]


@pytest.mark.parametrize(
    "path", sorted(OPERATIONS_FOLDER.glob("*.graphql")), ids=lambda it: it.stem
)
def test_each_operation_is_valid(path) -> None:
    assert validate(make_schema()._schema, parse(path.read_text())) == []
