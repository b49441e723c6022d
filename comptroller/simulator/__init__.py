"""A simulated AI provider that bills: OpenAI-compatible over real HTTP, with faults on demand.

async with simulator(SimulatorSettings(pace=50)) as running:
    client = AsyncOpenAI(base_url=running.base_url, api_key="any")
    ...
    assert running.bill()["total"] == "1.00"
"""

from comptroller.simulator.lengths import Fixed, LogNormal, Uniform
from comptroller.simulator.models import CATALOGUE, Model, token_priced
from comptroller.simulator.running import RunningSimulator, simulator, simulator_in_thread
from comptroller.simulator.settings import SimulatorSettings

__all__ = [
    "CATALOGUE",
    "Fixed",
    "LogNormal",
    "Model",
    "RunningSimulator",
    "SimulatorSettings",
    "Uniform",
    "simulator",
    "simulator_in_thread",
    "token_priced",
]
