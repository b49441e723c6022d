"""The last requests, as a test wants to see what really arrived; without secrets."""

import hashlib
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from comptroller.simulator.exchange import Exchange, Outcome

SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"}
)
# Twelve digits of a hash tell two credentials apart and give neither away.
DIGEST_CHARS = 12
BODY_SHOWN_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived, and what became of it."""

    at: datetime
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body_bytes: int
    body_start: bytes
    outcome: Outcome


class History:
    """Remember the last requests and what became of each."""

    def __init__(self, kept_max: int) -> None:
        self._seen: deque[Seen] = deque(maxlen=kept_max)
        self.count = 0

    def add(self, at: datetime, exchange: Exchange) -> None:
        """Remember a request; its outcome is filled in as it happens."""
        request = exchange.request
        self.count += 1
        seen = Seen(
            at,
            request.method,
            request.path,
            tuple((name, _without_secret(name, value)) for name, value in request.headers),
            len(request.body),
            request.body[:BODY_SHOWN_BYTES_MAX],
            exchange.outcome,
        )
        self._seen.append(seen)

    def clear(self) -> None:
        """Forget every request."""
        self._seen.clear()
        self.count = 0

    def shown(self) -> dict[str, Any]:
        """Write the requests as JSON values, the oldest first."""
        return {"seen": self.count, "requests": [_shown(seen) for seen in self._seen]}


def _shown(seen: Seen) -> dict[str, Any]:
    return {
        "at": seen.at.isoformat(),
        "method": seen.method,
        "path": seen.path,
        "headers": seen.headers,
        "body_bytes": seen.body_bytes,
        "body_start": seen.body_start.decode("utf-8", "replace"),
        "status": seen.outcome.status,
        "fate": seen.outcome.fate,
        "is_left": seen.outcome.is_left,
    }


def _without_secret(name: str, value: str) -> str:
    if name not in SECRET_HEADERS:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()
    return f"redacted, sha256 {digest[:DIGEST_CHARS]}"
