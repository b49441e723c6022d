"""GraphQL over HTTP: our own POST handler over `schema.execute`.

Follows the draft of the GraphQL over HTTP specification for `application/graphql-response+json`:
what is no document is 400, what does not validate 422. A client that only accepts
`application/json` gets 200 for those, as the draft asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from graphql import GraphQLError
from litestar.types import Receive, Scope, Send
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType

from controlplane.access.service import caller_of
from controlplane.api.documents import prepare
from controlplane.api.faults import masked
from controlplane.api.http import (
    GRAPHQL_JSON,
    Answer,
    Refused,
    bearer_of,
    check_request,
    media_type_for,
    read_body,
    send_answer,
)
from controlplane.api.request import Backend, Context
from controlplane.api.schema import Schema
from controlplane.authz import Caller

_ALLOWED = (OperationType.QUERY, OperationType.MUTATION)


class Operation(msgspec.Struct, frozen=True, rename="camel"):
    """The body of a request."""

    query: str
    operation_name: str | None = None
    variables: dict[str, Any] | None = None
    extensions: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class GraphQLHandler:
    """Answers POST requests to the API."""

    schema: Schema
    backend: Backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request_id = str(self.backend.installation.ids.new_uuid())
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        try:
            answer = await self._answer(scope, receive, headers, request_id)
        except Refused as refused:
            answer = refused.answer(request_id)
        await send_answer(send, answer, request_id)

    async def _answer(
        self, scope: Scope, receive: Receive, headers: Mapping[str, str], request_id: str
    ) -> Answer:
        check_request(str(scope.get("method")), headers)
        media_type = media_type_for(headers.get("accept"))
        caller = await self._caller(headers)
        operation = _operation(await read_body(receive, headers))
        context = Context(self.backend, caller, request_id)
        status, result = await self._execute(operation, context)
        is_told_by_status = media_type == GRAPHQL_JSON
        return Answer(status if is_told_by_status else 200, media_type, msgspec.json.encode(result))

    async def _caller(self, headers: Mapping[str, str]) -> Caller:
        token = bearer_of(headers)
        installation = self.backend.installation
        if token is not None:
            async with self.backend.database.read() as session:
                caller = await caller_of(session, token, installation.pepper, installation.now())
            if caller is not None:
                return caller
        raise Refused(
            401,
            "UNAUTHENTICATED",
            "Send an access token as `Authorization: Bearer cpat_…`.",
            (("www-authenticate", "Bearer"),),
        )

    async def _execute(self, operation: Operation, context: Context) -> tuple[int, dict[str, Any]]:
        """Execute a document that passed all checks; the status is for GraphQL clients."""
        prepared = prepare(self.schema._schema, operation.query)  # noqa: SLF001
        if prepared.errors:
            status = 400 if prepared.document is None else 422
            return status, {"errors": _shown(prepared.errors, context)}
        try:
            result = await self.schema.execute(
                operation.query,
                variable_values=operation.variables,
                context_value=context,
                operation_name=operation.operation_name,
                allowed_operation_types=_ALLOWED,
            )
        except (CannotGetOperationTypeError, InvalidOperationTypeError) as error:
            refused = GraphQLError(_reason(error))
            return 400, {"errors": _shown((refused,), context)}
        return _told(result, context)


def _told(result: ExecutionResult, context: Context) -> tuple[int, dict[str, Any]]:
    """Show a result; variables that could not be coerced leave no data and are 422."""
    if not result.errors:
        return 200, {"data": result.data}
    errors = _shown(tuple(result.errors), context)
    is_before_execution = result.data is None and all(each.path is None for each in result.errors)
    if is_before_execution:
        return 422, {"errors": errors}
    return 200, {"data": result.data, "errors": errors}


def _shown(errors: tuple[GraphQLError, ...], context: Context) -> list[dict[str, Any]]:
    return [dict(masked(each, context.request_id).formatted) for each in errors]


def _reason(error: CannotGetOperationTypeError | InvalidOperationTypeError) -> str:
    if isinstance(error, InvalidOperationTypeError):
        return "Only queries and mutations are answered here."
    return "Name the operation to execute."


def _operation(body: bytes) -> Operation:
    try:
        return msgspec.json.decode(body, type=Operation)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(
            400, "BAD_USER_INPUT", "Send one JSON object with `query` and `variables`."
        ) from error
