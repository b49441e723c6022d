"""The product with Strawberry's own Litestar controller beside our handler, as its peer.

`/stock` answers the same schema over the same database, finds out who asks in the same way, and
has the same cache of parsed and validated documents. It takes no points, and its rules of HTTP are
its own. `/known` and `/stock-known` are ours and theirs with callers kept in memory, so that what
is left is the handlers. `stock_controller` serves the benchmark of subscriptions too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from litestar import Litestar, asgi
from strawberry.litestar import BaseContext, make_graphql_controller
from strawberry.schema import BaseSchema
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from comptroller.app import create_app_from_environment
from controlplane.api.authentication import Authenticator
from controlplane.api.http import headers_of
from controlplane.api.points import PointBuckets
from controlplane.api.request import Backend, Context
from controlplane.api.schema import make_schema
from controlplane.authz import Caller

PATH = "/stock"
OURS_KNOWN = "/known"
STOCK_KNOWN = "/stock-known"


class Known(Authenticator):
    """Remembers every token it has seen, as the product must not."""

    __slots__ = ()
    callers: ClassVar[dict[str, Caller | None]] = {}

    async def caller_of(self, token: str) -> Caller | None:
        """Ask the database once for each token."""
        if token not in self.callers:
            self.callers[token] = await super().caller_of(token)
        return self.callers[token]


class StockContext(BaseContext, kw_only=True):
    """Our context as the controller wants it."""

    inner: Context

    def __getattr__(self, name: str) -> Any:
        """Give what a resolver asks for."""
        return getattr(self.inner, name)


def create_app() -> Litestar:
    """Make the product's application with its peers added."""
    app = create_app_from_environment()
    control = app.state.comptroller.control
    backend, handler = control.backend, control.api._handler  # noqa: SLF001
    known = Known(backend.database, backend.installation)
    app.register(stock_controller(make_schema(), backend, handler.authenticator, PATH))
    app.register(stock_controller(make_schema(), backend, known, STOCK_KNOWN))
    app.register(asgi(OURS_KNOWN, copy_scope=False)(replace(handler, authenticator=known).__call__))
    return app


def stock_controller(
    schema: BaseSchema, backend: Backend, authenticator: Authenticator, path: str
) -> Any:
    """Make the controller over a schema whose resolvers expect our context."""
    installation = backend.installation
    charge = PointBuckets(installation.clock, points_max=1, restore_per_s=1).take(None, 0)

    async def context(scope: Any) -> StockContext:
        caller = await authenticator.require(headers_of(scope))
        request_id = str(installation.ids.new_uuid())
        return StockContext(inner=Context(backend, caller, request_id, charge))

    return make_graphql_controller(
        schema,
        path=path,
        graphql_ide=None,
        context_getter=context,
        subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL],
    )
