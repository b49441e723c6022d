"""What every route of `/v1` has in common: an answer, whatever happens, that tells of no fault."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from litestar.types import Receive, Scope, Send

from controlplane.ids import IdSource
from proxy.client import Client, ClientGone
from proxy.errors import Header, Problem
from proxy.settings import ProxySettings
from proxy.timeouts import Timeouts

LOG: Final = structlog.get_logger("comptroller.proxy")
Answer = Callable[[Client, bytes], Awaitable[None]]
"""Answers one request, known by its 16 bytes; raises `Problem` or `ClientGone` if it cannot."""


class Serving:
    """Gives each request an id and an end."""

    def __init__(self, ids: IdSource, settings: ProxySettings, timeouts: Timeouts) -> None:
        self._ids = ids
        self._settings = settings
        self._timeouts = timeouts

    async def serve(self, scope: Scope, receive: Receive, send: Send, answer: Answer) -> None:
        """Let a request be answered, and answer it here when that fails."""
        client = Client(scope, receive, send, self._settings, self._timeouts)
        request_id = self._ids.new_bytes()
        try:
            await answer(client, request_id)
        except Problem as problem:
            await client.fail(problem, header_id(request_id))
        except ClientGone:
            pass
        except Exception:
            LOG.exception("request_failed", request_id=header_id(request_id).decode())
            await client.fail_internally(header_id(request_id))
        finally:
            client.close()


def header_id(request_id: bytes) -> bytes:
    """Write a request's id as callers see it, in `x-request-id`."""
    return b"req_" + request_id.hex().encode()


async def answer_json(
    client: Client, request_id: bytes, body: bytes, headers: Sequence[Header] = ()
) -> None:
    """Answer 200 with a JSON text."""
    own = (
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", header_id(request_id)),
    )
    await client.answer(200, [*own, *headers], body)


def policy_header(version: str) -> Header:
    """Name the policy that an answer was made under."""
    return (b"x-comptroller-policy-version", version.encode())
