"""What the API accepts over HTTP, and how it says no."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from litestar.types import Receive, Scope, Send

BODY_BYTES_MAX = 1 << 20
# The server waits for a body for ever, also when it is told to stop.
BODY_TIMEOUT_S = 30.0
GRAPHQL_JSON = "application/graphql-response+json"
JSON = "application/json"
EVENT_STREAM = "text/event-stream"

_RANGES = {
    GRAPHQL_JSON: GRAPHQL_JSON,
    JSON: JSON,
    EVENT_STREAM: EVENT_STREAM,
    "application/*": GRAPHQL_JSON,
    "*/*": GRAPHQL_JSON,
}

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    media_type: str
    body: bytes
    headers: Headers = ()


class Refused(Exception):
    """The request is answered before any document is executed."""

    def __init__(self, status: int, code: str, message: str, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers

    def answer(self, request_id: str) -> Answer:
        """Make the answer."""
        extensions = {"code": self.code, "requestId": request_id}
        body = {"errors": [{"message": self.message, "extensions": extensions}]}
        return Answer(self.status, GRAPHQL_JSON, msgspec.json.encode(body), self.headers)


def check_content(headers: Mapping[str, str]) -> None:
    """Let pass only uncompressed JSON.

    Raises `Refused`.
    """
    content_type, _, parameters = headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().replace('"', "")
    if content_type.strip().lower() != JSON or charset not in {"", "charset=utf-8"}:
        raise Refused(415, "BAD_USER_INPUT", "Send application/json in UTF-8.")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "BAD_USER_INPUT", "Send the body uncompressed.")


def media_type_for(accept: str | None) -> str:
    """Choose the media type of the answer by the client's preference.

    Raises `Refused` when the client accepts neither.
    """
    wanted = [_range_and_weight(each) for each in (accept or "*/*").split(",")]
    usable = [(weight, name) for name, weight in wanted if weight > 0 and name in _RANGES]
    if not usable:
        raise Refused(406, "BAD_USER_INPUT", f"Accept {GRAPHQL_JSON}, {JSON} or {EVENT_STREAM}.")
    best = max(weight for weight, _ in usable)
    return next(_RANGES[name] for weight, name in usable if weight == best)


def bearer_of(headers: Mapping[str, str]) -> str | None:
    """Read the token of the Authorization header; None when there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


async def read_body(receive: Receive, headers: Mapping[str, str]) -> bytes:
    """Read the body, at most `BODY_BYTES_MAX` of it.

    Raises `Refused`, before reading when the size is declared.
    """
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _read_body(receive, headers)
    except TimeoutError:
        message = f"Send the body within {BODY_TIMEOUT_S:.0f} s."
        raise Refused(408, "BAD_USER_INPUT", message, (("connection", "close"),)) from None


async def _read_body(receive: Receive, headers: Mapping[str, str]) -> bytes:
    declared = headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > BODY_BYTES_MAX:
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused(400, "BAD_USER_INPUT", "The request ended early.")
        size += len(message["body"])
        if size > BODY_BYTES_MAX:
            raise _too_large()
        parts.append(message["body"])
        if not message.get("more_body"):
            return b"".join(parts)


async def send_answer(send: Send, answer: Answer, request_id: str) -> None:
    """Send an answer."""
    headers = (
        ("content-type", f"{answer.media_type}; charset=utf-8"),
        ("content-length", str(len(answer.body))),
        ("cache-control", "no-store"),
        ("x-request-id", request_id),
        *answer.headers,
    )
    encoded = encoded_headers(headers)
    await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


def headers_of(scope: Scope) -> dict[str, str]:
    """Read the headers of a request; of one that is sent twice the last counts."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def encoded_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Write headers as ASGI takes them."""
    return [(name.encode(), value.encode()) for name, value in headers]


def _range_and_weight(text: str) -> tuple[str, float]:
    name, *parameters = (each.strip().lower() for each in text.split(";"))
    weight = next((each[2:] for each in parameters if each.startswith("q=")), "1")
    try:
        return name, float(weight)
    except ValueError:
        return name, 0.0


def _too_large() -> Refused:
    return Refused(413, "BAD_USER_INPUT", f"Send at most {BODY_BYTES_MAX} bytes.")
