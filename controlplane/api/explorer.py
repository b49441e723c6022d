"""GraphiQL at `/graphiql`, from files of our own: a host without internet shows it too.

The assets are built by `scripts/graphiql` and committed; docs/adr/0005-graphiql.md says from what.
Names of assets contain their hash, so browsers keep them for good and ask for the page alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

import msgspec
from litestar.handlers import ASGIRouteHandler, asgi
from litestar.types import Receive, Scope, Send

from controlplane.api.schema import SDL_PATH

EXPLORER_PATH = "/graphiql"
ASSETS_PATH = f"{EXPLORER_PATH}/assets"
FOLDER = Path(__file__).parent / "graphiql"
ASSETS_FOLDER = FOLDER / "assets"
OPERATIONS_FOLDER = FOLDER / "operations"

HTML = "text/html; charset=utf-8"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".graphql": "text/plain; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_EACH_TIME = "no-cache"
# The editor writes style elements and attributes of its own; scripts and everything else are files.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self'; "
    "style-src 'self' 'unsafe-inline'; font-src 'self' data:; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SECURITY = (
    ("content-security-policy", _CONTENT_SECURITY_POLICY),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
)


@dataclass(frozen=True, slots=True)
class File:
    """Something to serve; the tag is the hash of its body."""

    body: bytes
    media_type: str
    cache_control: str
    tag: str


class Manifest(msgspec.Struct, frozen=True):
    """What the build wrote: what the page asks for, and the SHA-256 of every file by name."""

    page: str
    style: str
    workers: dict[str, str]
    files: dict[str, str]


class ExplorerOperation(msgspec.Struct, frozen=True):
    """One tab: a document, and variables to begin with as the text of a JSON object."""

    query: str
    variables: str


@dataclass(frozen=True, slots=True)
class Explorer:
    """The page, and its assets by name."""

    page: File
    assets: Mapping[str, File]


@cache
def explorer() -> Explorer:
    """Read all files, once; a process that is never asked reads none of these five megabytes."""
    manifest = read_manifest()
    assets = {name: _asset(name, (ASSETS_FOLDER / name).read_bytes()) for name in manifest.files}
    schema = _asset("schema.graphql", SDL_PATH.read_bytes())
    operations = _asset("operations.json", msgspec.json.encode(read_operations()))
    schema_name = f"schema-{schema.tag[:16]}.graphql"
    operations_name = f"operations-{operations.tag[:16]}.json"
    assets |= {schema_name: schema, operations_name: operations}
    body = _page(manifest, schema_name, operations_name).encode()
    return Explorer(_file(body, HTML, _ASK_EACH_TIME), assets)


def read_manifest() -> Manifest:
    """Read what the build wrote about its files."""
    return msgspec.json.decode((ASSETS_FOLDER / "manifest.json").read_bytes(), type=Manifest)


def read_operations() -> list[ExplorerOperation]:
    """Read the operations in the order of their names."""
    return [
        ExplorerOperation(path.read_text(), _variables(path.with_suffix(".json")))
        for path in sorted(OPERATIONS_FOLDER.glob("*.graphql"))
    ]


def explorer_routes() -> tuple[ASGIRouteHandler, ...]:
    """Make the handlers to mount."""

    @asgi(EXPLORER_PATH, copy_scope=False)
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        await _serve(scope, send, lambda: explorer().page)

    @asgi(ASSETS_PATH, is_mount=True, copy_scope=False)
    async def asset(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        name = scope["path"].removeprefix(ASSETS_PATH).strip("/")
        await _serve(scope, send, lambda: explorer().assets.get(name))

    return page, asset


async def _serve(scope: Scope, send: Send, find: Callable[[], File | None]) -> None:
    """Answer GET and HEAD with a file, or say in words why not."""
    # Litestar's type of a scope says that the two never meet; a socket to this address does come.
    if scope["type"] == "websocket":  # type: ignore[comparison-overlap]
        return await send({"type": "websocket.close", "code": 1008, "reason": ""})
    method = str(scope.get("method"))
    if method not in {"GET", "HEAD"}:
        return await _send(send, 405, b"Use GET.\n", (("allow", "GET, HEAD"),))
    file = find()
    if file is None:
        return await _send(send, 404, b"There is nothing here.\n", is_head=method == "HEAD")
    cached = (("cache-control", file.cache_control), ("etag", f'"{file.tag}"'))
    if _has_it(scope, file):
        return await _send(send, 304, None, cached)
    described = (("content-type", file.media_type), *cached)
    return await _send(send, 200, file.body, described, is_head=method == "HEAD")


def _has_it(scope: Scope, file: File) -> bool:
    """Tell whether the client says that it has this very file (RFC 9110, 13.1.2)."""
    sent = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
    tags = {each.strip().removeprefix("W/") for each in sent.decode("latin-1").split(",")}
    return "*" in tags or f'"{file.tag}"' in tags


async def _send(
    send: Send,
    status: int,
    body: bytes | None,
    headers: tuple[tuple[str, str], ...] = (),
    *,
    is_head: bool = False,
) -> None:
    """Send an answer; one to HEAD says the length of the body that it leaves out."""
    if body is not None:
        headers = (*headers, ("content-length", str(len(body))))
    if not any(name == "content-type" for name, _ in headers) and body is not None:
        headers = (*headers, ("content-type", "text/plain; charset=utf-8"))
    encoded = [(name.encode(), value.encode()) for name, value in (*headers, *_SECURITY)]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    shown = b"" if body is None or is_head else body
    await send({"type": "http.response.body", "body": shown, "more_body": False})


def _asset(name: str, body: bytes) -> File:
    return _file(body, _MEDIA_TYPES[Path(name).suffix], _FOR_EVER)


def _file(body: bytes, media_type: str, cache_control: str) -> File:
    return File(body, media_type, cache_control, sha256(body).hexdigest())


def _variables(path: Path) -> str:
    if not path.exists():
        return ""
    text = path.read_text()
    _: dict[str, Any] = msgspec.json.decode(text, type=dict)
    return text.rstrip()


def _page(manifest: Manifest, schema: str, operations: str) -> str:
    def address(name: str) -> str:
        return escape(f"{ASSETS_PATH}/{name}")

    data = {
        "schema": address(schema),
        "operations": address(operations),
        **{f"worker-{kind}": address(name) for kind, name in manifest.workers.items()},
    }
    attributes = " ".join(f'data-{name}="{value}"' for name, value in data.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>GraphiQL · Comptroller</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{address(manifest.style)}">
<script type="module" src="{address(manifest.page)}"></script>
</head>
<body>
<div id="graphiql" {attributes}>Loading GraphiQL…</div>
<noscript>GraphiQL needs JavaScript.</noscript>
</body>
</html>
"""
