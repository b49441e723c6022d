"""Browsers of other origins: who may read answers, and how they ask first (CORS)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.api.http import Headers

ANY_ORIGIN = "*"
PREFLIGHT_MAX_AGE_S = 7_200
_EXPOSED = "x-request-id, ratelimit, ratelimit-policy, retry-after"
_PREFLIGHT: Headers = (
    ("access-control-allow-methods", "GET, POST"),
    ("access-control-allow-headers", "authorization, content-type, accept"),
    ("access-control-max-age", str(PREFLIGHT_MAX_AGE_S)),
)


@dataclass(frozen=True, slots=True)
class CrossOrigin:
    """The origins that may use the API from a browser; tokens are never sent by themselves."""

    origins: frozenset[str]

    def allows(self, headers: Mapping[str, str]) -> bool:
        """Tell whether a request may be answered: it is from no other page than these."""
        origin = headers.get("origin")
        return origin is None or self._is_allowed(origin) or _is_same(origin, headers)

    def answer_headers(self, headers: Mapping[str, str]) -> Headers:
        """Make the headers that let a browser read an answer."""
        origin = headers.get("origin")
        if origin is None or not self._is_allowed(origin):
            return (("vary", "origin"),)
        return (
            ("vary", "origin"),
            ("access-control-allow-origin", origin),
            ("access-control-expose-headers", _EXPOSED),
        )

    def preflight_headers(self, headers: Mapping[str, str]) -> Headers:
        """Make the headers of an answer to OPTIONS."""
        answer = self.answer_headers(headers)
        is_allowed = any(name == "access-control-allow-origin" for name, _ in answer)
        return answer + _PREFLIGHT if is_allowed else answer

    def _is_allowed(self, origin: str) -> bool:
        return origin in self.origins or ANY_ORIGIN in self.origins


def _is_same(origin: str, headers: Mapping[str, str]) -> bool:
    return origin.partition("://")[2] == headers.get("host")
