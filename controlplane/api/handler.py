"""GraphQL over HTTP: our own handler over `schema.execute`.

Follows the draft of the GraphQL over HTTP specification for `application/graphql-response+json`:
what is no document is 400, what does not validate 422. A client that only accepts
`application/json` gets 200 for those, as the draft asks. GET is answered for trusted documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import structlog
from graphql import OperationType
from litestar.types import Message, Receive, Scope, Send
from strawberry.types import ExecutionResult

from controlplane.api.authentication import Authenticator
from controlplane.api.cors import CrossOrigin
from controlplane.api.faults import shown
from controlplane.api.http import (
    EVENT_STREAM,
    GRAPHQL_JSON,
    JSON,
    Answer,
    Headers,
    Refused,
    check_content,
    headers_of,
    media_type_for,
    read_body,
    send_answer,
)
from controlplane.api.operation import Desk, Operation, OperationBody, RequestError, read_operation
from controlplane.api.request import Backend, Context
from controlplane.api.schema import Schema
from controlplane.api.sse import EventStreams, send_single
from controlplane.authz import Caller

_QUERY = (OperationType.QUERY,)
_QUERY_OR_CHANGE = (OperationType.QUERY, OperationType.MUTATION)
_ANY = tuple(OperationType)
_NO_STREAM = f"Subscribe over a WebSocket, or accept {EVENT_STREAM}."
_ONLY_QUERIES = "GET answers queries only; use POST."
# Longer lines are refused by the server before they get here.
_PARAMETERS_MAX = 10

_LOG = structlog.get_logger("controlplane.api")


@dataclass(frozen=True, slots=True)
class _Request:
    """What is known of a request before its document is."""

    id: str
    headers: Mapping[str, str]
    shared: Headers
    receive: Receive
    send: Send


@dataclass(slots=True)
class _Sending:
    """Sends, and knows whether the head of an answer is on its way already."""

    send: Send
    is_begun: bool = False

    async def __call__(self, message: Message) -> None:
        self.is_begun = True
        await self.send(message)


@dataclass(frozen=True, slots=True)
class GraphQLHandler:
    """Answers requests to the API."""

    schema: Schema
    backend: Backend
    desk: Desk
    authenticator: Authenticator
    streams: EventStreams
    cross_origin: CrossOrigin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = headers_of(scope)
        shared = self.cross_origin.answer_headers(headers)
        request_id = str(self.backend.installation.ids.new_uuid())
        sending = _Sending(send)
        request = _Request(request_id, headers, shared, receive, sending)
        try:
            await self._answer(scope, request)
        except Refused as refused:
            await self._send(request, refused.answer(request_id))
        except Exception:
            if sending.is_begun:
                raise
            _LOG.exception("request_failed", request_id=request_id)
            failure = Refused(500, "INTERNAL", "Something went wrong here.")
            await self._send(request, failure.answer(request_id))

    async def _answer(self, scope: Scope, request: _Request) -> None:
        method = str(scope.get("method"))
        if method == "OPTIONS" and "origin" in request.headers:
            preflight = self.cross_origin.preflight_headers(request.headers)
            await send_answer(request.send, Answer(204, JSON, b"", preflight), request.id)
            return
        body = None if method == "POST" else _operation_of_get(method, scope)
        if body is None:
            check_content(request.headers)
        media_type = media_type_for(request.headers.get("accept"))
        caller = await self.authenticator.require(request.headers)
        try:
            if body is None:
                body = read_operation(await read_body(request.receive, request.headers))
            allowed, else_say = _allowed(method, media_type)
            operation = self.desk.accept(body, caller, allowed, else_say)
            await self._serve(operation, caller, media_type, request)
        except RequestError as error:
            await self._send(request, _refusal(error, media_type, request.id))

    async def _serve(
        self, operation: Operation, caller: Caller, media_type: str, request: _Request
    ) -> None:
        if operation.type is OperationType.SUBSCRIPTION:
            await self._stream(operation, caller, request)
            return
        context = Context(self.backend, caller, request.id, operation.charge)
        status, result = await self._execute(operation, context)
        payload = msgspec.json.encode(result)
        if media_type == EVENT_STREAM:
            await send_single(request.send, payload, _stream_headers(operation, request))
            return
        status = status if media_type == GRAPHQL_JSON else 200
        await self._send(
            request, Answer(status, media_type, payload, operation.charge.as_headers())
        )

    async def _stream(self, operation: Operation, caller: Caller, request: _Request) -> None:
        headers = _stream_headers(operation, request)
        await self.streams.stream(
            operation, caller, request.id, request.receive, request.send, headers
        )

    async def _execute(self, operation: Operation, context: Context) -> tuple[int, dict[str, Any]]:
        """Execute an operation that passed all checks; the status is for GraphQL clients."""
        result = await self.schema.execute(
            operation.text,
            variable_values=operation.variables,
            context_value=context,
            operation_name=operation.name,
        )
        status, told = _told(result, context)
        told["extensions"] = {"cost": operation.charge.as_extension()}
        return status, told

    async def _send(self, request: _Request, answer: Answer) -> None:
        headers = (*request.shared, *answer.headers)
        await send_answer(
            request.send,
            Answer(answer.status, answer.media_type, answer.body, headers),
            request.id,
        )


def _allowed(method: str, media_type: str) -> tuple[tuple[OperationType, ...], str]:
    """Say which operations are answered this way, and what to tell who asks for another."""
    if method == "GET":
        return _QUERY, _ONLY_QUERIES
    return (_ANY, "") if media_type == EVENT_STREAM else (_QUERY_OR_CHANGE, _NO_STREAM)


def _told(result: ExecutionResult, context: Context) -> tuple[int, dict[str, Any]]:
    """Show a result; variables that could not be coerced leave no data and are 422."""
    if not result.errors:
        return 200, {"data": result.data}
    errors = shown(result.errors, context.request_id)
    is_before_execution = result.data is None and all(each.path is None for each in result.errors)
    if is_before_execution:
        return 422, {"errors": errors}
    return 200, {"data": result.data, "errors": errors}


def _refusal(error: RequestError, media_type: str, request_id: str) -> Answer:
    """Show why an operation was not executed.

    A client of plain JSON gets 200 for a document that cannot be executed, as the draft asks, and
    the true status for all that has nothing to do with the document.
    """
    body: dict[str, Any] = {"errors": shown(error.errors, request_id)}
    headers: Headers = ()
    if error.charge is not None:
        body["extensions"] = {"cost": error.charge.as_extension()}
        headers = error.charge.as_headers()
    is_about_document = media_type == JSON and error.status in {400, 422} and error.is_document
    status = 200 if is_about_document else error.status
    shown_type = GRAPHQL_JSON if media_type == EVENT_STREAM else media_type
    return Answer(status, shown_type, msgspec.json.encode(body), headers)


def _stream_headers(operation: Operation, request: _Request) -> Headers:
    return (("x-request-id", request.id), *request.shared, *operation.charge.as_headers())


def _operation_of_get(method: str, scope: Scope) -> OperationBody:
    """Read the operation of a GET, which names a trusted document.

    Raises `Refused` (405) for other methods, and for a GET that brings its own document.
    """
    if method == "GET":
        given = _parameters(scope["query_string"])
        if "documentId" in given:
            return OperationBody(
                document_id=given["documentId"],
                operation_name=given.get("operationName"),
                variables=_variables(given.get("variables")),
            )
    message = "Use POST; GET is answered for trusted documents only, named by `documentId`."
    raise Refused(405, "BAD_USER_INPUT", message, (("allow", "POST"),))


def _parameters(query_string: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(query_string.decode("latin-1"), max_num_fields=_PARAMETERS_MAX))
    except ValueError as error:
        message = f"Send at most {_PARAMETERS_MAX} parameters."
        raise Refused(400, "BAD_USER_INPUT", message) from error


def _variables(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(400, "BAD_USER_INPUT", "`variables` is one JSON object.") from error
