"""Running the application under Granian."""

from __future__ import annotations

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings

from comptroller.settings import ServerSettings

APPLICATION = "comptroller.app:create_app_from_environment"
# A head that takes longer is an attack, not a slow network.
HEADER_READ_TIMEOUT_MS = 10_000
HEADER_BYTES_MAX = 64 * 1024
# A worker that hangs at shutdown is ended; what it held is settled by then or presumed.
WORKER_KILL_TIMEOUT_S = 60
CONNECTIONS_WAITING_MAX = 2_048
# Above what one process can serve at once: we refuse with an answer of our own, and Granian
# would queue in silence.
REQUESTS_AT_ONCE_MAX = 20_000


def http1_settings() -> HTTP1Settings:
    """Bound what a client may do before its request is ours."""
    return HTTP1Settings(
        header_read_timeout=HEADER_READ_TIMEOUT_MS, max_buffer_size=HEADER_BYTES_MAX
    )


def serve(settings: ServerSettings, target: str = APPLICATION) -> None:
    """Serve until told to stop; settings of the workers come from the environment."""
    Granian(
        target,
        factory=True,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        workers=settings.workers,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        http1_settings=http1_settings(),
        backlog=CONNECTIONS_WAITING_MAX,
        backpressure=REQUESTS_AT_ONCE_MAX,
        respawn_failed_workers=True,
        workers_kill_timeout=WORKER_KILL_TIMEOUT_S,
        websockets=True,
        log_access=False,
    ).serve()
