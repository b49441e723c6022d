"""From the credentials of a request to whom it acts for, on headers alone."""

from __future__ import annotations

from typing import Final

from controlplane.keys.secret import SecretKind, digest, kind_of
from core_rs import Engine, Principal
from proxy.client import Client
from proxy.errors import (
    invalid_api_key,
    invalid_request,
    key_disabled,
    organization_suspended,
)

_KEYS: Final = (SecretKind.LIVE_KEY, SecretKind.TEST_KEY)


class Authenticator:
    """Knows keys by their digests; a wrong checksum is refused without a look-up."""

    def __init__(self, engine: Engine, pepper: bytes) -> None:
        self._engine = engine
        self._pepper = pepper

    def principal(self, client: Client, wall_ns: int) -> Principal:
        """Say whose key the request carries.

        Raises `Problem`: 401, one and the same for every key that does not work, or 400 when two
        different credentials were sent or the head has two readings.
        """
        client.check_head()
        principal = self._known(_secret(client), wall_ns)
        if principal is None:
            raise invalid_api_key()
        return principal

    def _known(self, secret: str, wall_ns: int) -> Principal | None:
        if kind_of(secret) not in _KEYS:
            return None
        return self._engine.authenticate(digest(secret, self._pepper), wall_ns)


def check_state(principal: Principal) -> None:
    """Refuse a key or an organization that is switched off, with 403."""
    if principal.state == "disabled":
        raise key_disabled()
    if principal.organization_state != "active":
        raise organization_suspended()


def _secret(client: Client) -> str:
    """Take the one credential of a head; it may come more than once as long as it is the same."""
    given = {_bearer(value) for value in client.values(b"authorization")}
    if b"x-api-key" in client.headers:
        given.update(value.strip() for value in client.values(b"x-api-key"))
    if len(given) > 1:
        raise invalid_request(
            "ambiguous_credentials", "The request carries two different credentials; send one."
        )
    secret = next(iter(given), None)
    return "" if secret is None else secret.decode("latin-1")


def _bearer(value: bytes) -> bytes | None:
    """Give a bearer token; None for any other scheme."""
    scheme, _, secret = value.partition(b" ")
    return secret.strip() if scheme.lower() == b"bearer" else None
