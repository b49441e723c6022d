"""Confirm tokens: how a caller says that a request past a limit's step is meant.

A token is bound to a key, a request's body and a limit. It works once and for 10 minutes, and
needs no store: it carries its end and an HMAC. Only those that were used and are not over are
remembered.
"""

from __future__ import annotations

import heapq
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

from proxy.errors import Problem, invalid_request

HEADER: Final = b"x-comptroller-confirm"
LIFETIME_NS: Final = 600 * 1_000_000_000
# Several limits may each ask for a confirmation of one request.
TOKENS_MAX: Final = 8
# Beyond it the token that ends first is forgotten, and with it all that end no later count as over.
USED_KEPT_MAX: Final = 262_144

_PURPOSE: Final = b"comptroller confirm token 1"
_END_BYTES: Final = 8
_MAC_BYTES: Final = 32
_TOKEN_BYTES: Final = _END_BYTES + _MAC_BYTES


class Confirmation(StrEnum):
    """What a token says about a request."""

    OK = "ok"
    """It is for this request and has now been used."""
    EXPIRED = "expired"
    """It was for this request; its time is over."""
    USED = "used"
    """It was for this request and has been used before."""
    WRONG = "wrong"
    """It is none of ours, or for another key, body or limit."""


class Confirmations:
    """Makes and checks tokens. Owned by one event loop.

    What was used is known to this process alone: tokens that were made before it started count as
    over, and of several processes each takes a token once.
    """

    def __init__(
        self, pepper: bytes, started_wall_ns: int, *, used_kept_max: int = USED_KEPT_MAX
    ) -> None:
        self._secret = hmac.digest(pepper, _PURPOSE, sha256)
        self._used_kept_max = used_kept_max
        self._used: set[bytes] = set()
        # The used ones by their ends: a heap.
        self._ends: list[tuple[int, bytes]] = []
        # Of tokens that end no later it is not known whether they were used.
        self._over_ns = started_wall_ns + LIFETIME_NS

    def __len__(self) -> int:
        """Count the used tokens that are remembered."""
        return len(self._ends)

    def make(self, key_id: str, fingerprint: bytes, limit_id: str, wall_ns: int) -> tuple[str, int]:
        """Make a token, and tell the instant (wall clock, nanoseconds) at which it ends."""
        # A wall clock that was set back must not make tokens that are over already.
        end_ns = max(wall_ns + LIFETIME_NS, self._over_ns + 1)
        token = end_ns.to_bytes(_END_BYTES, "big")
        token += self._mac(token, key_id, fingerprint, limit_id)
        return urlsafe_b64encode(token).rstrip(b"=").decode(), end_ns

    def check(
        self, token: str, key_id: str, fingerprint: bytes, limit_id: str, wall_ns: int
    ) -> Confirmation:
        """Check a token for a request, and use it up if it is OK."""
        decoded = _decoded(token)
        end, mac = decoded[:_END_BYTES], decoded[_END_BYTES:]
        if not hmac.compare_digest(self._mac(end, key_id, fingerprint, limit_id), mac):
            return Confirmation.WRONG
        self._forget_over(wall_ns)
        end_ns = int.from_bytes(end, "big")
        if end_ns <= max(wall_ns, self._over_ns):
            return Confirmation.EXPIRED
        if mac in self._used:
            return Confirmation.USED
        self._used.add(mac)
        heapq.heappush(self._ends, (end_ns, mac))
        if len(self._ends) > self._used_kept_max:
            self._forget_first()
        return Confirmation.OK

    def _mac(self, end: bytes, key_id: str, fingerprint: bytes, limit_id: str) -> bytes:
        # Each part with its length: no two lists of parts make the same message.
        parts = (end, key_id.encode(), fingerprint, limit_id.encode())
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._secret, message, sha256)

    def _forget_over(self, wall_ns: int) -> None:
        while self._ends and self._ends[0][0] <= wall_ns:
            self._forget_first()

    def _forget_first(self) -> None:
        end_ns, mac = heapq.heappop(self._ends)
        self._used.discard(mac)
        # Also where the wall clock is set back it does not work again.
        self._over_ns = max(self._over_ns, end_ns)


def read_tokens(headers: Mapping[bytes, bytes]) -> tuple[str, ...]:
    """Read the tokens a caller sends, separated by commas; what they are worth is not looked at.

    Raises `Problem` (400 `invalid_header`) for more than `TOKENS_MAX`.
    """
    given = headers.get(HEADER)
    if given is None:
        return ()
    tokens = tuple(token.strip() for token in given.decode("latin-1").split(","))
    if len(tokens) > TOKENS_MAX:
        raise invalid_request(
            "invalid_header", f"{HEADER.decode()} must be at most {TOKENS_MAX} tokens."
        )
    return tokens


def confirmation_required(
    limit: dict[str, Any], percent: int, token: str, expires_at: datetime
) -> Problem:
    """Make the problem of a request that has to be confirmed; `limit` holds the limit's figures."""
    return Problem(
        403,
        "confirmation_required",
        f"The {limit['scope']} limit on {limit['resource']} asks for a confirmation from {percent} "
        f"% on. To confirm, send the same request again with the header {HEADER.decode()} and the "
        "confirm_token of this error.",
        limit=limit,
        facts={"confirm_token": token, "expires_at": expires_at.isoformat()},
    )


def _decoded(token: str) -> bytes:
    """Decode a token; nothing that could have a right HMAC where it is none."""
    try:
        decoded = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (NotBase64, ValueError):
        return b""
    # Characters that base64 passes over, or bits it drops, would be other spellings of one token.
    is_canonical = urlsafe_b64encode(decoded).rstrip(b"=") == token.encode()
    return decoded if is_canonical and len(decoded) == _TOKEN_BYTES else b""
