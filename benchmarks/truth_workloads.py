"""The workloads of S14: what fifty clients ask for, how fast it comes, and what the cap holds."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from random import Random

from benchmarks.truth_clients import Run
from comptroller.simulator.directives import read_directives
from comptroller.simulator.lengths import Fixed, LogNormal, parse_length
from comptroller.simulator.models import CATALOGUE
from comptroller.simulator.tokens import count_tokens

IS_FULL = os.environ.get("COMPTROLLER_BENCH_FULL") == "1"
# What the deployments of all paces resell; both sides price it alike.
SOLD = next(model for model in CATALOGUE if model.name == "sim-small")
# 3 tokens a message and 3 for the answer, and the role: what the provider adds to a text.
FRAME_TOKENS = 7
# A provider notices an abort within so many milliseconds; deployments state what that can cost.
NOTICED_MS = 100
ABORT_TAIL_TOKENS_MIN = 10
# As many as the estimator needs and a few more than the quantile's window is likely to be.
WARM_REQUESTS = 100
# The provider's directive for tokens that are billed and not shown.
HIDDEN = "reasoning"
# Runs of slow streams at once: their clients must not need more connections than a pool has (512).
SLOW_AT_ONCE = 8
# Seeds of different runs must not meet, nor those of a history and its run.
SEEDS_APART = 1_000_000


@dataclass(frozen=True, slots=True)
class Workload:
    """One row group of the table: requests of one kind against one cap, over some seeds.

    `length` and `pace` (tokens a second) are directives to the provider, `cap_requests` the cap in
    requests of mean cost; `hidden_tokens` are billed with each answer and shown to nobody.
    `share_min` and `cut_max` are targets in percent, `cuts_max` in streams of one run.
    """

    name: str
    length: str
    pace: int
    cap_requests: int
    seeds: int
    max_tokens: int | None = None
    json_every: int = 0
    is_warm: bool = True
    hidden_tokens: int = 0
    share_min: float | None = None
    cut_max: float | None = None
    cuts_max: int | None = None

    @property
    def model(self) -> str:
        """Name of the deployment that serves this workload."""
        return f"{'reasoning' if self.hidden_tokens else 'visible'}-{self.pace}"

    @property
    def prompt(self) -> str:
        """The user message, with the directives in it."""
        hidden = f" {HIDDEN}={self.hidden_tokens}" if self.hidden_tokens else ""
        return f"Write. [[sim output={self.length} pace={self.pace}{hidden}]]"

    @property
    def can_be_asked(self) -> bool:
        """Whether the simulated provider knows every directive."""
        try:
            read_directives([self.prompt])
        except ValueError:
            return False
        return True

    @property
    def cap_nanos(self) -> int:
        """The cap: so many requests of mean length, at the provider's price."""
        return self.cap_requests * self.cost_nanos(self._mean_tokens() + self.hidden_tokens)

    def cost_nanos(self, output_tokens: int) -> int:
        """Price one answer with its prompt."""
        input_tokens = count_tokens(SOLD.vocabulary, self.prompt) + FRAME_TOKENS
        return SOLD.cost_nanos(input_tokens, output_tokens)

    def drawn_tokens(self, seed: int) -> int:
        """Tell how many tokens of an answer are billed to a request with this seed, or would be.

        As `simulator.generation` draws it: the settings' seed is 0, the choice the first.
        """
        drawn = parse_length(self.length).draw(Random(f"0/seed/{seed}/0"))
        drawn = min(drawn, self.max_tokens or SOLD.output_tokens_max, SOLD.output_tokens_max)
        return drawn + self.hidden_tokens

    def run(self, name: str, number: int, secret: str) -> Run:
        """Make the measured run of one organization, the `number`th of the benchmark."""
        return Run(
            name=name,
            # Slow streams take long and little of the machine, so they run beside all others.
            lane=f"slow {number % SLOW_AT_ONCE}" if self.pace < FAST else "fast",
            secret=secret,
            model=self.model,
            prompt=self.prompt,
            first_seed=(2 * number + 1) * SEEDS_APART,
            requests_max=5 * self.cap_requests + 500,
            json_every=self.json_every,
            max_tokens=self.max_tokens,
        )

    def history(self, name: str, number: int, secret: str) -> Run:
        """Make the requests that the organization has behind it: of the same lengths, at once."""
        return Run(
            name=name,
            lane=name,
            secret=secret,
            model=self.model,
            prompt=self.prompt.replace(f"pace={self.pace}", "pace=0"),
            first_seed=2 * number * SEEDS_APART,
            requests_max=WARM_REQUESTS if self.is_warm else 0,
            clients=2,
            json_every=1,
            max_tokens=self.max_tokens,
        )

    def _mean_tokens(self) -> int:
        length = parse_length(self.length)
        if isinstance(length, Fixed):
            return length.tokens
        if isinstance(length, LogNormal):
            return round(length.median * math.exp(length.sigma**2 / 2))
        raise ValueError(f"no mean is known for {self.length}")


STEADY, FAST = 50, 500
TYPICAL = "lognormal:300:1.0"
# The design's own: without `max_tokens`, at two paces, against three caps.
NAMED = [
    Workload(f"typical, {pace}/s, cap 20", TYPICAL, pace, 20, 10 if IS_FULL else 3, cuts_max=2)
    for pace in (STEADY, FAST)
] + [
    Workload(
        f"typical, {pace}/s, cap {cap}", TYPICAL, pace, cap, seeds, share_min=share, cut_max=cut
    )
    for pace, cap, seeds, share, cut in (
        (STEADY, 200, 5 if IS_FULL else 2, 95, 3),
        (FAST, 200, 5 if IS_FULL else 3, 95, 3),
        (FAST, 2_000, 3 if IS_FULL else 1, 99, 0.5),
        *(((STEADY, 2_000, 1, 99, 0.5),) if IS_FULL else ()),
    )
]
_SEEDS = 5 if IS_FULL else 2
OTHERS = [
    Workload("short: 30 tokens", "30", FAST, 200, _SEEDS),
    Workload("long: 2,000 tokens", "2000", FAST, 100, _SEEDS // 2),
    Workload("heavy tail, max_tokens 4,096", TYPICAL, FAST, 200, _SEEDS, max_tokens=4_096),
    Workload("reasoning: hidden tokens", TYPICAL, FAST, 100, _SEEDS, hidden_tokens=500),
    Workload("mixed: every second one JSON", TYPICAL, FAST, 200, _SEEDS, json_every=2),
    Workload("cold, cap 20", TYPICAL, FAST, 20, _SEEDS, is_warm=False),
    Workload("cold, cap 60", TYPICAL, FAST, 60, _SEEDS, is_warm=False),
]
WORKLOADS = [*NAMED, *OTHERS]


def upstreams(provider_port: int) -> dict[str, object]:
    """Serve one deployment for each pace and visibility, each with connections of its own."""
    models = {
        (workload.model, workload.pace, bool(workload.hidden_tokens)) for workload in WORKLOADS
    }
    listed = [
        _upstream(provider_port, model, pace, is_hidden=is_hidden)
        for model, pace, is_hidden in sorted(models)
    ]
    return {"upstreams": listed}


def _upstream(provider_port: int, model: str, pace: int, *, is_hidden: bool) -> dict[str, object]:
    tail = max(ABORT_TAIL_TOKENS_MIN, pace * NOTICED_MS // 1000)
    deployment = {
        "name": model,
        "upstream_model": SOLD.name,
        "price": {"input_per_million": "0.15", "output_per_million": "0.60"},
        "output_tokens_max": SOLD.output_tokens_max,
        "vocabulary": SOLD.vocabulary,
        "all_tokens_visible": not is_hidden,
        "on_disconnect": "cancel",
        "abort_tail_tokens": tail,
    }
    return {
        "name": model,
        "provider": model,
        "base_url": f"http://127.0.0.1:{provider_port}/v1",
        "private_addresses": ["127.0.0.0/8"],
        "models": [deployment],
    }
