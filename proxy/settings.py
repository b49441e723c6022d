"""Settings of the proxy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from controlplane.settings import setting, whole_number


def optional_path(text: str) -> Path | None:
    """Read a path; an empty value means none."""
    return Path(text) if text else None


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """How requests are taken in and passed on."""

    upstreams_file: Path | None = setting(
        "UPSTREAMS_FILE",
        "JSON file that names providers, their addresses, credentials (`env:NAME`) and models; "
        "empty means no model is served.",
        default=None,
        parse=optional_path,
    )
    body_bytes_max: int = setting(
        "BODY_BYTES_MAX",
        "Largest request body in bytes; more gets 413.",
        default=32 * 1024 * 1024,
        parse=whole_number(1_024, 1024 * 1024 * 1024),
    )
    answer_bytes_max: int = setting(
        "ANSWER_BYTES_MAX",
        "Largest answer in one piece that is taken from a provider, in bytes; more gets 502.",
        default=32 * 1024 * 1024,
        parse=whole_number(1_024, 1024 * 1024 * 1024),
    )
    body_idle_timeout_s: int = setting(
        "BODY_IDLE_TIMEOUT_S",
        "Longest pause while a request body arrives, in seconds; then 408.",
        default=10,
        parse=whole_number(1, 600),
    )
    body_timeout_s: int = setting(
        "BODY_TIMEOUT_S",
        "Longest time a whole request body may take, in seconds; then 408.",
        default=60,
        parse=whole_number(1, 3_600),
    )
    head_timeout_s: int = setting(
        "UPSTREAM_HEAD_TIMEOUT_S",
        "Longest wait for the first byte of a provider's answer, in seconds; then 504.",
        default=300,
        parse=whole_number(1, 3_600),
    )
    drain_timeout_s: int = setting(
        "DRAIN_TIMEOUT_S",
        "How long an answer is still read after its client left, to learn the usage, in seconds.",
        default=30,
        parse=whole_number(0, 600),
    )
    slow_reader_timeout_s: int = setting(
        "SLOW_READER_TIMEOUT_S",
        "A client that takes nothing of a stream for this long is cut off, in seconds.",
        default=30,
        parse=whole_number(1, 600),
    )
    shutdown_grace_s: int = setting(
        "SHUTDOWN_GRACE_S",
        "How long running requests may go on when the server is told to stop, in seconds; then "
        "they are ended and charged.",
        default=20,
        parse=whole_number(0, 40),
    )
