"""`serve --demo`: a simulated provider and a demo organization beside the server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from comptroller.founding import Demo, found_demo
from comptroller.settings import Settings
from comptroller.simulator.models import CATALOGUE

SECRETS_FILE = "demo.json"
UPSTREAMS_FILE = "demo-upstreams.json"
FLAT_MODEL = "sim-flat-0.05"


def demo_secrets(settings: Settings) -> Demo:
    """Make the demo organization, or read back what an earlier start made."""
    path = settings.control.data_dir / SECRETS_FILE
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=Demo)
    demo = asyncio.run(found_demo(settings))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(demo))
    return demo


@contextmanager
def demo_provider(settings: Settings) -> Iterator[Path]:
    """Run the simulated provider in a process of its own; gives the upstreams file for it."""
    command = [sys.executable, "-m", "comptroller.cli", "simulate-provider", "--port", "0"]
    pace = ["--pace", "200", "--json"]
    process = subprocess.Popen([*command, *pace], stdout=subprocess.PIPE)  # noqa: S603
    try:
        assert process.stdout is not None
        ready = msgspec.json.decode(process.stdout.readline())
        yield _write_upstreams(settings.control.data_dir, ready["base_url"])
    finally:
        process.terminate()
        process.wait()


def greeting(settings: Settings, demo: Demo) -> str:
    """Write what a new user needs: a request that works, and where to look at it."""
    address = f"http://{settings.server.host}:{settings.server.port}"
    return f"""
Comptroller is ready at {address}
  proxy     {address}/v1         (a base_url for any OpenAI SDK)
  GraphQL   {address}/graphql; to look around: {address}/graphiql
  demo key  {demo.key}
  admin     {demo.admin_token}

Try it; the demo key may spend 1.00 a day, and this model costs 0.05 a request:
  curl {address}/v1/chat/completions -H 'authorization: Bearer {demo.key}' \\
    -H 'content-type: application/json' \\
    -d '{{"model": "{FLAT_MODEL}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
"""


def _write_upstreams(data_dir: Path, base_url: str) -> Path:
    path = data_dir / UPSTREAMS_FILE
    path.write_bytes(msgspec.json.format(msgspec.json.encode(simulated_upstreams(base_url))))
    return path


def simulated_upstreams(base_url: str) -> dict[str, object]:
    """Describe a simulated provider as an upstreams file, with the prices it bills."""
    models = [
        {
            "name": model.name,
            "output_tokens_max": model.output_tokens_max,
            "vocabulary": model.vocabulary,
            "price": {
                "request": _decimal(model.request_price_picos),
                "input_per_million": _decimal(model.input_price_picos * 1_000_000),
                "output_per_million": _decimal(model.output_price_picos * 1_000_000),
            },
        }
        for model in CATALOGUE
    ]
    upstream = {
        "name": "simulator",
        "base_url": base_url,
        "provider": "simulator",
        "private_addresses": ["127.0.0.0/8"],
        "models": models,
    }
    return {"upstreams": [upstream]}


def _decimal(picos: int) -> str:
    units, fraction = divmod(picos, 10**12)
    return f"{units}.{fraction:012d}".rstrip("0").rstrip(".")
