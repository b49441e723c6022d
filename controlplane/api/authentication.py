"""Who asks, by the access token of a request or of a socket's first message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.access.service import caller_of
from controlplane.api.http import Refused, bearer_of
from controlplane.authz import Caller
from controlplane.context import Installation
from controlplane.db import Database


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Finds callers by their tokens."""

    database: Database
    installation: Installation

    async def caller_of(self, token: str) -> Caller | None:
        """Find whom a token stands for; None when malformed, unknown, expired or revoked."""
        async with self.database.read() as session:
            return await caller_of(
                session, token, self.installation.pepper, self.installation.now()
            )

    async def require(self, headers: Mapping[str, str]) -> Caller:
        """Find who sent a request.

        Raises `Refused` (401).
        """
        token = bearer_of(headers)
        caller = None if token is None else await self.caller_of(token)
        if caller is None:
            raise Refused(
                401,
                "UNAUTHENTICATED",
                "Send an access token as `Authorization: Bearer cpat_…`.",
                (("www-authenticate", "Bearer"),),
            )
        return caller
