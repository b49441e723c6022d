"""Why an upstream call failed, and whether it may already have cost money.

UpstreamError
├── UpstreamUnreachable      no connection (DNS, refused, TLS); nothing was sent
├── UpstreamConnectTimeout   no connection in time; nothing was sent
├── UpstreamAddressRefused   the name leads to an address the operator did not allow
├── UpstreamPoolExhausted    every connection is busy and no more may wait
├── UpstreamTimeout          no response head, or no body byte, in time
├── UpstreamReset            the peer closed before the answer was whole
├── UpstreamBadResponse      the answer is not HTTP/1.1 as we accept it
└── UpstreamTooLarge         the body passes what the caller asked to hold
"""

from __future__ import annotations

from typing import ClassVar


class UpstreamError(Exception):
    """An upstream call that gave no whole answer.

    `code` and `status` are those of the error reference. `sent` is whether any request byte may
    have left: only when it is false is a second attempt free of the risk of paying twice.
    """

    code: ClassVar[str] = "upstream_error"
    status: ClassVar[int] = 502

    def __init__(self, detail: str, *, sent: bool) -> None:
        super().__init__(detail)
        self.detail = detail
        self.sent = sent


class UpstreamUnreachable(UpstreamError):
    """No connection: the name, the port or the TLS handshake failed."""

    code = "upstream_unreachable"


class UpstreamConnectTimeout(UpstreamError):
    """No connection within `connect_timeout_s`."""

    code = "upstream_connect_timeout"
    status = 504


class UpstreamAddressRefused(UpstreamError):
    """The upstream's name leads to an address that is not public and not listed."""

    code = "upstream_unreachable"


class UpstreamPoolExhausted(UpstreamError):
    """Every connection is busy, and the waiting list is full or the wait took too long."""

    code = "overloaded"
    status = 503


class UpstreamTimeout(UpstreamError):
    """The upstream went silent after the request was written."""

    code = "upstream_timeout"
    status = 504


class UpstreamReset(UpstreamError):
    """The connection ended before the answer was whole.

    `reused` and not `answered`: most likely a keep-alive connection that the peer closed while
    the request was on its way. Whether it read the request cannot be known, so `sent` is true.
    """

    def __init__(self, detail: str, *, sent: bool, reused: bool = False, answered: bool) -> None:
        super().__init__(detail, sent=sent)
        self.reused = reused
        self.answered = answered


class UpstreamBadResponse(UpstreamError):
    """The answer breaks HTTP framing or a bound on its head."""

    code = "upstream_bad_response"


class UpstreamTooLarge(UpstreamError):
    """The body is larger than the caller's bound."""

    code = "upstream_response_too_large"
