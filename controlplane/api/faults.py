"""How failures are told: what a caller can mend in the payload, the rest as masked faults."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from enum import StrEnum
from typing import Any, TypeVar

import strawberry
import structlog
from graphql import GraphQLError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.exc import StaleDataError

from controlplane.api.fields import enumeration, resolved
from controlplane.api.nodes import Node, id_of_subject, load_node
from controlplane.api.request import Info
from controlplane.api.scalars import Money
from controlplane.context import Work
from controlplane.errors import (
    CeilingExceeded,
    Conflict,
    LimitExceeded,
    NotFound,
    NotPermitted,
    StaleVersion,
    Subject,
    UserFault,
)

T = TypeVar("T")

_LOG = structlog.get_logger("controlplane.api")


class ErrorCode(StrEnum):
    """The machine's part of a failure that the caller can mend."""

    NOT_FOUND = "NOT_FOUND"
    INVALID = "INVALID"
    CONFLICT = "CONFLICT"
    STALE_VERSION = "STALE_VERSION"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    INSUFFICIENT_BALANCE = "INSUFFICIENT_BALANCE"
    IDEMPOTENCY_MISMATCH = "IDEMPOTENCY_MISMATCH"


enumeration(
    ErrorCode,
    "ErrorCode",
    "The machine's part of a failure you can mend.",
    {
        ErrorCode.NOT_FOUND: "There is no such object, or you may not see it.",
        ErrorCode.INVALID: "A value is out of its range, or contradicts another.",
        ErrorCode.CONFLICT: "It contradicts the state things are in: a name is taken, a key "
        "revoked, or another change was made at the same time.",
        ErrorCode.STALE_VERSION: "The object has changed since the version you named; "
        "`ConflictError.current` is how it is now.",
        ErrorCode.LIMIT_EXCEEDED: "There are as many as there may be, or as much is shared out; "
        "`LimitError.maximum` or `LimitError.limit` says how much that is.",
        ErrorCode.INSUFFICIENT_BALANCE: "A wallet would be left with less than has been spent "
        "from it or is held by requests under way.",
        ErrorCode.IDEMPOTENCY_MISMATCH: "The idempotency key was used before with another input.",
    },
)


@strawberry.interface(description="A failure you can mend; nothing was changed.")
class UserError:
    """A failure that the caller can mend."""

    code: ErrorCode = strawberry.field(description="What went wrong, for programs.")
    message: str = strawberry.field(description="What went wrong, for people.")
    field: list[str] | None = strawberry.field(description="Path into `input`; null: no field.")


@strawberry.type(description="The input cannot be used, or not in the state things are in.")
class InputError(UserError):
    """A failure without further data."""


@strawberry.type(description="The object has changed since you read it.")
class ConflictError(UserError):
    """Another version is the latest."""

    about: strawberry.Private[Subject | None]

    @resolved("The object as it is now; null when it does not exist.")
    async def current(self, info: Info) -> Node | None:
        """Load the object."""
        return None if self.about is None else await load_node(info, id_of_subject(self.about))


@strawberry.type(description="There are as many, or as much money is shared out, as there may be.")
class LimitError(UserError):
    """More of something than one may have."""

    maximum: int | None = strawberry.field(description="How many there may be; null for money.")
    limit: Money | None = strawberry.field(
        description="How much may be shared out; null for what is no money."
    )
    attempted: Money | None = strawberry.field(
        description="How much it would have been; null for what is no money."
    )
    about: strawberry.Private[Subject | None]

    @resolved("The team's budget that is shared out; null for what is no money.")
    async def ceiling(self, info: Info) -> Node | None:
        """Load the budget; null, too, when the caller may not see it."""
        return None if self.about is None else await load_node(info, id_of_subject(self.about))


async def attempt(
    info: Info, change: Callable[[Work], Awaitable[T]]
) -> tuple[T | None, list[UserError]]:
    """Make a change in one transaction and publish it, or say what the caller can mend.

    Raises what the caller cannot mend; nothing is changed then either. What is shown afterwards
    is read anew.
    """
    info.context.renew()
    try:
        async with info.context.work() as work:
            return await change(work), []
    except UserFault as fault:
        return None, [user_error(fault)]
    except (IntegrityError, StaleDataError):
        _LOG.info("write_conflict", request_id=info.context.request_id, exc_info=True)
        return None, [user_error(Conflict("It was changed at the same time; try again."))]


def user_error(fault: UserFault) -> UserError:
    """Show a failure of a service in a payload."""
    code, field = ErrorCode(fault.code), list(fault.field) or None
    if isinstance(fault, StaleVersion):
        return ConflictError(code=code, message=fault.message, field=field, about=fault.current)
    if isinstance(fault, LimitExceeded):
        return LimitError(
            code=code,
            message=fault.message,
            field=field,
            maximum=fault.maximum,
            limit=None,
            attempted=None,
            about=None,
        )
    if isinstance(fault, CeilingExceeded):
        return LimitError(
            code=code,
            message=fault.message,
            field=field,
            maximum=None,
            limit=Money(fault.limit_nanos),
            attempted=Money(fault.attempted_nanos),
            about=fault.ceiling,
        )
    return InputError(code=code, message=fault.message, field=field)


def masked(error: GraphQLError, request_id: str) -> GraphQLError:
    """Turn an error into what a caller may see; what is unexpected is logged and hidden."""
    original = error.original_error
    if original is None or isinstance(original, GraphQLError):
        code = (error.extensions or {}).get("code", "BAD_USER_INPUT")
        return _fault(error, error.message, code, request_id)
    if isinstance(original, NotPermitted):
        return _fault(error, str(original), "FORBIDDEN", request_id)
    if isinstance(original, UserFault):
        code = "NOT_FOUND" if isinstance(original, NotFound) else "BAD_USER_INPUT"
        return _fault(error, original.message, code, request_id)
    _LOG.error("api_error", request_id=request_id, path=error.path, exc_info=original)
    return _fault(error, "Something went wrong here.", "INTERNAL", request_id)


def shown(errors: Iterable[GraphQLError], request_id: str) -> list[dict[str, Any]]:
    """Show errors as they stand in an answer."""
    return [dict(masked(each, request_id).formatted) for each in errors]


def _fault(error: GraphQLError, message: str, code: str, request_id: str) -> GraphQLError:
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions={"code": code, "requestId": request_id},
    )
