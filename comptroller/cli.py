"""The command line.

Each command imports what it needs: all of the product takes seconds to import.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import msgspec

from comptroller.settings import Settings, settings_page
from controlplane.errors import ControlPlaneError, UserFault
from controlplane.settings import SettingsError

SIMULATE = "simulate-provider"
READY_POLL_S = 0.1
READY_TIMEOUT_S = 120


class _Commands(click.Group):
    """Loads the simulated provider's command only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), SIMULATE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != SIMULATE:
            return super().get_command(ctx, cmd_name)
        from comptroller.simulator.cli import simulate_provider

        return simulate_provider


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="comptroller")
def main() -> None:
    """Comptroller: hard spend limits for AI traffic, live spend, and proof."""


@main.command()
@click.option(
    "--plane",
    type=click.Choice(["all", "proxy", "control"]),
    default="all",
    show_default=True,
    help="Which planes this process serves.",
)
@click.option("--demo", is_flag=True, help="With a simulated provider and a demo organization.")
def serve(plane: str, *, demo: bool) -> None:
    """Serve the proxy and the GraphQL API; settings come from COMPTROLLER_* variables."""
    from comptroller.server import serve as serve_application

    settings = _settings()
    settings.control.data_dir.mkdir(parents=True, exist_ok=True)
    os.environ["COMPTROLLER_PLANE"] = plane
    with ExitStack() as companions:
        ready_text = f"Comptroller is ready at {_address(settings)}"
        if demo:
            from comptroller.demo import demo_provider, demo_secrets, greeting

            upstreams = companions.enter_context(demo_provider(settings))
            os.environ["COMPTROLLER_UPSTREAMS_FILE"] = str(upstreams)
            ready_text = greeting(settings, demo_secrets(settings))
        else:
            _check_upstreams(settings)
        companions.enter_context(_telling_when_ready(settings, ready_text))
        serve_application(settings.server)


@main.command()
@click.option("--email", required=True, help="E-mail address of the first admin.")
@click.option("--slug", default="main", show_default=True, help="Short name in addresses.")
@click.option("--name", default="Main", show_default=True, help="Name of the organization.")
@click.option("--currency", default="USD", show_default=True, help="ISO 4217 code.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def init(email: str, slug: str, name: str, currency: str, *, as_json: bool) -> None:
    """Set up the database with an operator, a first organization and its admin."""
    from comptroller.founding import found

    settings = _settings()
    try:
        founded = asyncio.run(found(settings, email=email, slug=slug, name=name, currency=currency))
    except UserFault as fault:
        raise click.ClickException(f"{'.'.join(fault.field)}: {fault.message}") from fault
    except ControlPlaneError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(msgspec.json.encode(founded))
        return
    click.echo(
        f"Organization {slug} is set up. These tokens are shown once:\n"
        f"  operator  {founded.operator_token}\n"
        f"  admin     {founded.admin_token}\n"
        "Now run: comptroller serve"
    )


@main.command(name="export-schema")
@click.option("--output", type=click.Path(path_type=Path), help="File to write; else printed.")
def export_schema(output: Path | None) -> None:
    """Print the GraphQL schema."""
    from controlplane.api.schema import sdl

    _write(sdl(), output)


@main.command(name="export-settings")
@click.option("--output", type=click.Path(path_type=Path), help="File to write; else printed.")
def export_settings(output: Path | None) -> None:
    """Print the reference page of all settings."""
    _write(settings_page(), output)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text)


def _settings() -> Settings:
    try:
        return Settings.from_environment(os.environ)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error


def _check_upstreams(settings: Settings) -> None:
    """Build what each worker will build, so that a mistake is told once and in words."""
    from comptroller.app import read_catalogue

    try:
        read_catalogue(settings, os.environ)
    except UserFault as fault:
        raise _unusable(settings, f"{'.'.join(fault.field)}: {fault.message}") from fault
    except (OSError, ValueError) as error:
        raise _unusable(settings, str(error)) from error


def _unusable(settings: Settings, why: str) -> click.ClickException:
    path = settings.proxy.upstreams_file
    return click.ClickException(f"COMPTROLLER_UPSTREAMS_FILE={path} cannot be used: {why}")


def _address(settings: Settings) -> str:
    return f"http://{settings.server.host}:{settings.server.port}"


@contextmanager
def _telling_when_ready(settings: Settings, text: str) -> Iterator[None]:
    """Print a text once the server answers that it is ready.

    A process waits for that, not a thread: the server forks its workers, and a lock that another
    thread holds at that moment stays locked in them for ever.
    """
    waiting = multiprocessing.get_context("fork").Process(
        target=_tell_when_ready, args=(_address(settings), text), daemon=True
    )
    waiting.start()
    try:
        yield
    finally:
        waiting.terminate()
        waiting.join()


def _tell_when_ready(address: str, text: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for _ in range(int(READY_TIMEOUT_S / READY_POLL_S)):
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=5):  # noqa: S310
                click.echo(text)
                return
        except (urllib.error.URLError, OSError):
            time.sleep(READY_POLL_S)


if __name__ == "__main__":
    main()
