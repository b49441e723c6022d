"""Settings of the simulated provider."""

from dataclasses import dataclass

from comptroller.simulator.lengths import Fixed, OutputLength
from comptroller.simulator.models import CATALOGUE, Model


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """How the simulated provider behaves; a request's directives go before these."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 0
    """Port to listen on; 0 takes a free one."""
    api_key: str | None = None
    """The only credential that is accepted; None accepts anything, also nothing."""
    models: tuple[Model, ...] = CATALOGUE
    """The models that are served; `sim-flat-AMOUNT` always is."""
    output: OutputLength = Fixed(64)
    """How many tokens an answer has where no maximum cuts it."""
    pace: int = 0
    """Tokens a second of each answer; 0: as fast as possible."""
    reasoning: OutputLength = Fixed(0)
    """How many hidden tokens each choice begins with: billed, in the usage, within the maximum."""
    reasoning_pace: int | None = None
    """Hidden tokens a second of each answer, 0 as fast as possible; None: as `pace`."""
    exceed: int = 1
    """Answers have this many times the maximum the request sets, all of it shown; 1: they obey."""
    overbill: int = 1
    """Every output token is billed, and in the usage, so many times; 1: once."""
    latency_ms: int = 0
    """Wait before the first byte of each answer, in milliseconds."""
    seed: int = 0
    """Seed of every answer, together with the order in which the requests came."""
    notice_ms: int = 0
    """How long after a client left generation goes on at its pace, in milliseconds."""
    abort_tail_tokens: int = 0
    """Tokens that are generated and billed on top once an abort is noticed."""
    requests_kept_max: int = 1_000
    """How many requests `GET /_simulator/requests` remembers."""
    body_bytes_max: int = 32 << 20
    """Largest request body that is read, in bytes."""
