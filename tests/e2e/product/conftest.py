"""An installation for the product's rows, on a clock that moves when told, at exact prices."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from comptroller.demo import simulated_upstreams
from comptroller.simulator.running import RunningSimulator
from controlplane.access.service import create_access_token, create_operator
from controlplane.clock import ManualClock
from controlplane.context import Work
from tests.e2e.product.tenant import Tenant
from tests.stack import Stack, running_stack

# A Saturday; Pi day.
START = datetime(2026, 3, 14, 9, 26, 53, 500_000, tzinfo=UTC)
# Name, upstream and tier of models with a price for each request, which the name tells.
TIERED = (
    ("premium", "simulator", "premium", "0.04"),
    ("standard", "simulator", "standard", "0.02"),
    ("economy", "simulator", "economy", "0.01"),
    ("elsewhere", "other", "economy", "0.01"),
)
# Priced by the token, as the simulated provider bills it.
STREAMED: dict[str, Any] = {
    "name": "streamed",
    "upstream_model": "sim-large",
    "output_tokens_max": 1_000,
    "vocabulary": "o200k_base",
    "on_disconnect": "cancel",
    "price": {"input_per_million": "2.50", "output_per_million": "10.00"},
}
_NUMBERS = count(1)

MakeTenant = Callable[..., Tenant]


@pytest.fixture(scope="session")
def product_clock() -> ManualClock:
    """The clock of the shared installation: no test may count on where it stands."""
    return ManualClock(START)


@pytest.fixture(scope="session")
def product_installation(
    tmp_path_factory: pytest.TempPathFactory,
    shared_provider: RunningSimulator,
    product_clock: ManualClock,
) -> Iterator[tuple[Stack, str]]:
    """The installation behind the rows, and its operator's token."""
    folder = tmp_path_factory.mktemp("product")
    with installed(folder, shared_provider, product_clock) as running:
        yield running


@pytest.fixture
def make_tenant(
    product_installation: tuple[Stack, str], provider: RunningSimulator, product_clock: ManualClock
) -> MakeTenant:
    """Make organizations in the shared installation."""
    stack, operator_token = product_installation

    def make() -> Tenant:
        found = stack.tenant(f"row-{next(_NUMBERS)}")
        return Tenant(found, provider, product_clock, operator_token)

    return make


@pytest.fixture
def tenant(make_tenant: MakeTenant) -> Tenant:
    """A new organization in the shared installation."""
    return make_tenant()


@pytest.fixture
def tenant_at(tmp_path: Path, provider: RunningSimulator) -> Iterator[Callable[[str], Tenant]]:
    """Make an organization in an installation of its own, which starts at an instant."""
    with ExitStack() as opened:

        def make(start: str) -> Tenant:
            clock = ManualClock(datetime.fromisoformat(start))
            running = installed(tmp_path, provider, clock)
            stack, operator_token = opened.enter_context(running)
            return Tenant(stack.tenant("row"), provider, clock, operator_token)

        yield make


@contextmanager
def installed(
    folder: Path, provider: RunningSimulator, clock: ManualClock
) -> Iterator[tuple[Stack, str]]:
    """Run an installation whose models have tiers; gives its operator's token, too."""
    path = folder / "own-upstreams.json"
    path.write_text(json.dumps(_upstreams(provider.base_url)))
    with running_stack(
        folder, provider, clock=clock, organization=False, upstreams_file=path
    ) as stack:
        yield stack, stack.change(_operator_token)


def _upstreams(base_url: str) -> dict[str, Any]:
    described: dict[str, Any] = simulated_upstreams(base_url)
    [own] = described["upstreams"]
    other = {**own, "name": "other", "provider": "other", "models": []}
    described["upstreams"].append(other)
    for name, upstream, tier, price in TIERED:
        model = {
            "name": name,
            "upstream_model": f"sim-flat-{price}",
            "tier": tier,
            "output_tokens_max": 1_000,
            "vocabulary": "o200k_base",
            "price": {"request": price},
        }
        (other if upstream == "other" else own)["models"].append(model)
    other["models"].append(STREAMED)
    return described


async def _operator_token(work: Work) -> str:
    user = await create_operator(work, email="operator@example.com")
    return await create_access_token(work, user=user, member=None, name="test")
