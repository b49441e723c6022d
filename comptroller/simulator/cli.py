"""`comptroller simulate-provider`: the simulated provider as a tool."""

import asyncio
import signal
import sys
from typing import Any

import click
import msgspec
import uvloop

from comptroller.simulator.directives import LATENCY_MS_MAX, PACE_MAX, TIMES_MAX
from comptroller.simulator.lengths import OutputLength, parse_length
from comptroller.simulator.running import RunningSimulator, simulator
from comptroller.simulator.settings import SimulatorSettings


class _Length(click.ParamType[OutputLength]):
    name = "length"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return parse_length(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(name="simulate-provider")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8090, show_default=True, type=click.IntRange(0, 65535), help="0: a free one."
)
@click.option(
    "--api-key", envvar="COMPTROLLER_SIMULATOR_API_KEY", help="Accept only this credential."
)
@click.option(
    "--output",
    default="64",
    show_default=True,
    type=_Length(),
    help="Length of answers in tokens: 300, uniform:100:500, lognormal:300:1.0.",
)
@click.option(
    "--pace",
    default=0,
    show_default=True,
    type=click.IntRange(0, PACE_MAX),
    help="Tokens a second of each answer; 0: as fast as possible.",
)
@click.option(
    "--reasoning",
    default="0",
    show_default=True,
    type=_Length(),
    help="Hidden tokens before each answer, in the forms of --output.",
)
@click.option(
    "--reasoning-pace",
    type=click.IntRange(0, PACE_MAX),
    help="Hidden tokens a second of each answer; as --pace if not given.",
)
@click.option(
    "--exceed",
    default=1,
    show_default=True,
    type=click.IntRange(1, TIMES_MAX),
    help="Answer with so many times the max_tokens of a request.",
)
@click.option(
    "--overbill",
    default=1,
    show_default=True,
    type=click.IntRange(1, TIMES_MAX),
    help="Bill every output token so many times.",
)
@click.option(
    "--latency-ms",
    default=0,
    show_default=True,
    type=click.IntRange(0, LATENCY_MS_MAX),
    help="Wait before the first byte.",
)
@click.option(
    "--notice-ms",
    default=0,
    show_default=True,
    type=click.IntRange(0, LATENCY_MS_MAX),
    help="How long generation goes on after a client left.",
)
@click.option(
    "--abort-tail-tokens",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Tokens billed on top of an aborted stream.",
)
@click.option("--seed", default=0, show_default=True, type=int, help="Seed of every answer.")
@click.option("--json", "as_json", is_flag=True, help="Write the ready line as JSON.")
def simulate_provider(*, as_json: bool, **options: Any) -> None:
    """Serve a simulated OpenAI-compatible provider that keeps its own bill."""
    try:
        uvloop.run(_serve(SimulatorSettings(**options), as_json=as_json))
    except OSError as error:
        raise click.ClickException(f"Cannot listen on {options['host']}: {error}.") from None


async def _serve(settings: SimulatorSettings, *, as_json: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with simulator(settings) as running:
        sys.stdout.write(_ready_line(running, as_json=as_json))
        sys.stdout.flush()
        await stop.wait()


def _ready_line(running: RunningSimulator, *, as_json: bool) -> str:
    bill = f"{running.address}/_simulator/bill"
    if as_json:
        ready = {"ready": True, "base_url": running.base_url, "port": running.port, "bill": bill}
        return msgspec.json.encode(ready).decode() + "\n"
    return f"Simulated provider ready at {running.base_url} (bill: {bill})\n"
