"""From the credentials of a request to whom it acts for, on headers alone."""

from __future__ import annotations

from typing import Final

from controlplane.keys.secret import SecretKind, digest, kind_of
from core_rs import Engine, Principal
from proxy.client import Client
from proxy.errors import invalid_api_key, invalid_request

_KEYS: Final = (SecretKind.LIVE_KEY, SecretKind.TEST_KEY)


class Authenticator:
    """Knows keys by their digests; a wrong checksum is refused without a look-up."""

    def __init__(self, engine: Engine, pepper: bytes) -> None:
        self._engine = engine
        self._pepper = pepper

    def principal(self, client: Client, wall_ns: int) -> Principal:
        """Say whose key the request carries.

        Raises `Problem`: 401, one and the same for every key that does not work, or 400 when two
        different credentials were sent.
        """
        principal = self._known(_secret(client), wall_ns)
        if principal is None:
            raise invalid_api_key()
        return principal

    def _known(self, secret: str, wall_ns: int) -> Principal | None:
        if kind_of(secret) not in _KEYS:
            return None
        return self._engine.authenticate(digest(secret, self._pepper), wall_ns)


def _secret(client: Client) -> str:
    bearer = client.headers.get(b"authorization")
    other = client.headers.get(b"x-api-key")
    if client.doubled & {b"authorization", b"x-api-key"}:
        raise _ambiguous()
    secret = b""
    if bearer is not None:
        scheme, _, secret = bearer.partition(b" ")
        if scheme.lower() != b"bearer":
            raise invalid_api_key()
    if other is not None and bearer is not None and other != secret.strip():
        raise _ambiguous()
    if bearer is None and other is not None:
        secret = other
    return secret.strip().decode("latin-1")


def _ambiguous() -> Exception:
    return invalid_request(
        "ambiguous_credentials", "The request carries two different credentials; send one."
    )
