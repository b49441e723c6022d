"""What a caller is told when a request cannot be served.

Every answer carries a stable code, and `x-should-retry` says on purpose whether the official
SDKs may repeat the request by themselves. `errors.md` of the design is the list of codes;
`docs/reference/errors.md` is what users read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

Header = tuple[bytes, bytes]

# The SDKs wait at most this long before they repeat a request by themselves.
RETRY_AFTER_SDK_MAX_S = 60

_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
}


@dataclass(eq=False)
class Problem(Exception):
    """Why a request is not served, as the caller will read it.

    `limit` holds the figures of a limit that refused. `should_retry` is for the SDKs.
    `original` is a provider's own error body, handed on as it is; `facts` are further members
    of the error. An error that `tells_charge` says what was `charged`, once that is known.
    """

    status: int
    code: str
    message: str
    param: str | None = None
    limit: dict[str, Any] | None = None
    retry_after_s: int | None = None
    should_retry: bool = False
    headers: tuple[Header, ...] = field(default=())
    original: bytes = b""
    facts: dict[str, Any] = field(default_factory=dict)
    tells_charge: bool = False
    charged: str | None = None
    currency: str | None = None

    @property
    def type(self) -> str:
        """Name the class of error as OpenAI's API does."""
        if self.status >= 500:  # noqa: PLR2004 - the boundary of server errors
            return "api_error"
        return _TYPES.get(self.status, "invalid_request_error")

    def error(self) -> dict[str, Any]:
        """Give the error in the form of OpenAI's API."""
        error: dict[str, Any] = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        if self.limit is not None:
            error["limit"] = self.limit
        if self.charged is not None:
            error["charged"] = self.charged
            error["currency"] = self.currency
        return {**error, **self.facts}

    def body(self) -> bytes:
        """Write the body of the answer."""
        return self.original or msgspec.json.encode({"error": self.error()})

    def event(self) -> bytes:
        """Write the error as the last event of a stream; the SDKs raise on it."""
        return b"data: " + self.body() + b"\n\n"

    def response_headers(self, request_id: bytes, body: bytes) -> list[Header]:
        """List the headers of the answer."""
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id),
            (b"x-should-retry", b"true" if self.should_retry else b"false"),
            *self.headers,
        ]
        if self.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % self.retry_after_s))
        return headers


def invalid_request(code: str, message: str, param: str | None = None) -> Problem:
    """Make the problem of a request that is wrong in itself."""
    return Problem(400, code, message, param)


# These are made anew each time: an exception object that is raised again keeps its old traces.
def invalid_api_key() -> Problem:
    """Make the one and same answer to every key that does not work."""
    return Problem(
        401,
        "invalid_api_key",
        "The API key is missing or not valid. Send a Comptroller key as "
        "'Authorization: Bearer ck_…'.",
    )


def key_disabled() -> Problem:
    """Make the problem of a key that is switched off."""
    return Problem(403, "key_disabled", "This API key is disabled. Ask who issued it.")


def organization_suspended() -> Problem:
    """Make the problem of an organization that is switched off."""
    return Problem(403, "organization_suspended", "The organization of this key is suspended.")


def records_behind() -> Problem:
    """Make the problem of decisions that could not be recorded."""
    return Problem(
        503,
        "audit_unavailable",
        "Decisions cannot be recorded at the moment, so nothing is let through. Try again.",
        retry_after_s=1,
        should_retry=True,
    )


def not_decided() -> Problem:
    """Make the problem of a request that no decision could be made on: nothing is let through."""
    return Problem(
        503,
        "enforcement_unavailable",
        "Whether the request fits its limits cannot be decided at the moment, so it is not let "
        "through. Try again.",
        retry_after_s=1,
        should_retry=True,
    )


def model_not_priced(model: str, currency: str) -> Problem:
    """Make the problem of a model that has no price its organization could be charged."""
    return Problem(
        403,
        "model_not_priced",
        f"There is no price in {currency} for the model {model!r}.",
        "model",
    )


def shutting_down() -> Problem:
    """Make the problem of a request that this server will not finish."""
    return Problem(
        503,
        "server_shutting_down",
        "This server is shutting down. Try again.",
        retry_after_s=1,
        should_retry=True,
    )


def internal() -> Problem:
    """Make the problem of a fault of our own."""
    return Problem(
        500, "internal_error", "Comptroller failed to handle this request. It has been logged."
    )
