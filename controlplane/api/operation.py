"""One operation of a caller, whatever way it came: read, checked and paid for before it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from graphql import GraphQLError, GraphQLSchema, OperationType

from controlplane.api.documents import (
    DOCUMENT_LENGTH_MAX,
    Prepared,
    is_remembered,
    points_of,
    prepare,
    root_field_of,
)
from controlplane.api.points import Charge, PointBuckets
from controlplane.authz import Caller

# Deeper than any input of the schema, and far from what the interpreter can walk.
VARIABLES_DEPTH_MAX = 64
# What a document costs that turns out not to be valid: to parse and validate the worst of 20 kB
# takes 0.14 s, and a caller gets 2,000 points back in a second.
CHARACTERS_PER_POINT = 10


class OperationBody(msgspec.Struct, frozen=True, rename="camel"):
    """What a client sends: a document or the id of a trusted one, and its variables."""

    query: str | None = None
    document_id: str | None = None
    operation_name: str | None = None
    variables: dict[str, Any] | None = None
    extensions: dict[str, Any] | None = None


class RequestError(Exception):
    """An operation that is not executed; `status` is for HTTP, `charge` for the caller's bucket."""

    def __init__(
        self,
        status: int,
        message: str = "",
        *,
        code: str = "BAD_USER_INPUT",
        errors: tuple[GraphQLError, ...] = (),
        charge: Charge | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        # Whether it is the document that cannot be executed, whoever sent it and however.
        self.is_document = bool(errors)
        self.errors = errors or (GraphQLError(message, extensions={"code": code}),)
        self.charge = charge


class DocumentSource(Protocol):
    """Finds the document of a request, given by its text or by its id."""

    def text_of(self, body: OperationBody) -> str:
        """Find the document.

        Raises `RequestError`.
        """


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation that may be executed."""

    text: str
    name: str | None
    variables: dict[str, Any]
    type: OperationType
    root_field: str
    charge: Charge


@dataclass(frozen=True, slots=True)
class Desk:
    """Where every operation is checked and paid for."""

    schema: GraphQLSchema
    documents: DocumentSource
    buckets: PointBuckets

    def accept(
        self, body: OperationBody, caller: Caller, allowed: tuple[OperationType, ...], else_say: str
    ) -> Operation:
        """Check an operation and take its points from its caller's bucket.

        Raises `RequestError`; nothing is taken then but for a document that is new and not valid.
        """
        text = self.documents.text_of(body)
        _refuse_nul(text)
        _check_values(body.variables)
        prepared = self._prepared(text, caller)
        if prepared.errors:
            status = 400 if prepared.document is None else 422
            raise RequestError(status, errors=prepared.errors)
        chosen = prepared.operation(body.operation_name)
        if chosen is None:
            raise RequestError(400, "Name one operation of the document as `operationName`.")
        if chosen.operation not in allowed:
            raise RequestError(400, else_say)
        variables = body.variables or {}
        charge = self._charge(text, body.operation_name, variables, caller)
        assert prepared.document is not None
        root_field = root_field_of(prepared.document, chosen)
        return Operation(text, body.operation_name, variables, chosen.operation, root_field, charge)

    def _prepared(self, text: str, caller: Caller) -> Prepared:
        """Prepare a document; finding out that a new one is not valid is work, and paid for."""
        if is_remembered(self.schema, text):
            return prepare(self.schema, text)
        cost = 1 + min(len(text), DOCUMENT_LENGTH_MAX) // CHARACTERS_PER_POINT
        _require_paid(self.buckets.look(caller.user_id, cost))
        prepared = prepare(self.schema, text)
        if prepared.errors:
            self.buckets.take(caller.user_id, cost)
        return prepared

    def _charge(
        self, text: str, name: str | None, variables: dict[str, Any], caller: Caller
    ) -> Charge:
        try:
            points = points_of(self.schema, text, name, variables)
        except GraphQLError as error:
            raise RequestError(422, errors=(error,)) from error
        charge = self.buckets.take(caller.user_id, points)
        _require_paid(charge)
        return charge


def _require_paid(charge: Charge) -> None:
    if not charge.is_paid:
        reason = (
            f"This costs {charge.cost} points and you have {charge.remaining} left; "
            f"try again in {charge.wait_s} s."
        )
        raise RequestError(429, reason, code="RATE_LIMITED", charge=charge)


def read_operation(raw: bytes) -> OperationBody:
    """Read what a client sent.

    Raises `RequestError`.
    """
    try:
        return msgspec.json.decode(raw, type=OperationBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        is_batch = raw.lstrip()[:1] == b"["
        hint = " Batches are not answered." if is_batch else ""
        raise RequestError(
            400, f"Send one JSON object with `query` and `variables`.{hint}"
        ) from error


def _refuse_nul(text: str) -> None:
    """Refuse the character NUL, which one of the databases stores and the other does not."""
    if "\0" in text or "\\u0000" in text or "\\u{0" in text:
        raise _nul()


def _check_values(variables: dict[str, Any] | None) -> None:
    """Refuse NUL in variables, and nesting that would go on forever.

    Raises `RequestError`.
    """
    level: list[object] = [variables]
    for _ in range(VARIABLES_DEPTH_MAX + 1):
        if any(isinstance(each, str) and "\0" in each for each in level):
            raise _nul()
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return
    raise RequestError(400, f"`variables` are nested deeper than {VARIABLES_DEPTH_MAX}.")


def _inside(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _nul() -> RequestError:
    return RequestError(400, "The character U+0000 is not allowed.")
