"""S14: truth in both directions, over real HTTP, against a provider that bills.

Fifty clients of an organization with one money budget, whose requests may wait for a minute, send
until the first 402 and let what is open end. Of each run:

- *overspend*: what the provider's bill is above the cap. It bills what it generated until it
  noticed an abort. The ledger must not be below that bill either: beside it stands by how much
  of the cap the ledger is above it (negative: money was spent that nobody booked).
- *used*: what was finally booked for the requests that had been admitted when the first refusal
  was decided, of the cap. This is compared with the target: such a request holds money that is
  as good as spent, nobody else could have had it, and whether it is a millisecond from its end
  or ten seconds says something of the pace and nothing of the decision.
- *settled*: the strict figure, what had been booked at that very instant. It is the floor of the
  former and below it by the streams that ran; both are printed.
- *cut*: streams that were ended for want of money, of all that were admitted.
- *could fit*: refused requests for which there was money in the end. The provider's seeds say
  how long their answers would have been; the cheapest are counted first.

Each is a mean over seeds, but for overspend: that is the worst. Runs of 50 tokens a second run
beside the others, which follow each other. Fifty streams of 500 tokens a second are as many chunks
as two shared cores can generate, relay and read, so those come at what the machine allows.
`COMPTROLLER_BENCH_FULL=1` takes more seeds, and 2,000 requests at 50 tokens a second.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.installation import environment_with, listening
from benchmarks.processes import OTHER_CORE, pinned
from benchmarks.table import Row
from benchmarks.truth_clients import Clients, Outcome, Run
from benchmarks.truth_provider import Invoice, invoice, simulated_provider
from benchmarks.truth_tenants import (
    Booked,
    Tenant,
    booked_by,
    first_refusal_at_ns,
    found_tenants,
    set_budget,
    set_wait,
    until_recorded,
)
from benchmarks.truth_workloads import WORKLOADS, Workload, upstreams
from comptroller.settings import Settings

DATABASE_FILE = "comptroller.sqlite3"
HOLD_WAIT_S = 60
# From a decision until the provider has the request, on a busy machine.
FORWARDED_WITHIN_NS = 100_000_000


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of one run; money in nano dollars."""

    outcome: Outcome
    cap_nanos: int
    billed_nanos: int
    booked_nanos: int
    used_nanos: int
    settled_nanos: int
    could_fit: int

    @property
    def overspend(self) -> float:
        """Percent of the cap that was billed above it."""
        return self._percent(max(0, self.billed_nanos - self.cap_nanos))

    @property
    def booked_above_bill(self) -> float:
        """Percent of the cap that was booked above the bill."""
        return self._percent(self.booked_nanos - self.billed_nanos)

    @property
    def used(self) -> float:
        """Percent of the cap that requests admitted before the first refusal came to."""
        return self._percent(self.used_nanos)

    @property
    def settled(self) -> float:
        """Percent of the cap that was settled at the first refusal."""
        return self._percent(self.settled_nanos)

    @property
    def cut(self) -> float:
        """Percent of the admitted requests that were cut."""
        cut = self.outcome.count("cut")
        return 100 * cut / max(1, cut + self.outcome.count("completed"))

    def _percent(self, nanos: int) -> float:
        return 100 * nanos / self.cap_nanos


@dataclass(frozen=True, slots=True)
class Trial:
    """One organization that measures a workload."""

    name: str
    number: int
    workload: Workload
    tenant: Tenant


def measure(folder: Path, _provider_port: int) -> list[Row]:
    """Run every workload that the simulated provider can answer; gives three rows of each."""
    begun = time.monotonic()
    asked = [workload for workload in WORKLOADS if workload.can_be_asked]
    with simulated_provider() as provider_port:
        environment = environment_with(folder, upstreams(provider_port))
        trials = _found(environment, asked)
        with listening("product", environment) as (_, port):
            results = _results(folder / DATABASE_FILE, trials, port, provider_port)
    rows = [row for each in WORKLOADS for row in _rows(each, results.get(each.name, []))]
    took = Row("   time taken", f"{time.monotonic() - begun:.0f} s", target="<= 240 s, not full")
    return [*rows, took]


def _found(environment: dict[str, str], workloads: Sequence[Workload]) -> list[Trial]:
    wanted = [workload for workload in workloads for _ in range(workload.seeds)]
    slugs = [f"trial-{number}" for number in range(len(wanted))]
    tenants = found_tenants(Settings.from_environment(environment), slugs)
    return [
        Trial(slug, number, workload, tenants[slug])
        for number, (slug, workload) in enumerate(zip(slugs, wanted, strict=True))
    ]


def _results(
    file: Path, trials: Sequence[Trial], port: int, provider_port: int
) -> dict[str, list[Measured]]:
    """Give every organization its history and its budget, run all, and look at the books."""
    histories = [
        each.workload.history(each.name, each.number, each.tenant.secret) for each in trials
    ]
    before = _driven(port, histories)
    sent = sum(each.answers for each in before.values())
    until_recorded(file, sent)
    waits = True
    for each in trials:
        behind_nanos = sum(entry.nanos for entry in booked_by(file, each.tenant))
        set_budget(port, each.tenant, behind_nanos + each.workload.cap_nanos)
        waits = set_wait(port, each.tenant, HOLD_WAIT_S)
    if not waits:
        print(f"  the API sets no hold_wait_s yet: whatever the product does, not {HOLD_WAIT_S} s")
    runs = [each.workload.run(each.name, each.number, each.tenant.secret) for each in trials]
    outcomes = _driven(port, runs)
    billed = invoice(provider_port)
    until_recorded(file, sent + sum(each.answers for each in outcomes.values()))
    _check_named(billed, [entry for each in trials for entry in booked_by(file, each.tenant)])
    results: dict[str, list[Measured]] = {}
    for each in trials:
        found = _measured(file, each, outcomes[each.name], billed)
        results.setdefault(each.workload.name, []).append(found)
    return results


def _driven(port: int, runs: Sequence[Run]) -> dict[str, Outcome]:
    argument = msgspec.json.encode(Clients(port=port, runs=list(runs))).decode()
    with pinned("benchmarks.truth_clients", argument, core=OTHER_CORE) as process:
        output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the clients ended with {process.returncode}")
    return {each.name: each for each in msgspec.json.decode(output, type=list[Outcome])}


def _check_named(billed: Invoice, booked: Sequence[Booked]) -> None:
    """Hold bill and ledger against each other: every request that was billed has an entry."""
    unknown = billed.nanos.keys() - {entry.id for entry in booked}
    if unknown or billed.total_nanos != sum(billed.nanos.values()):
        raise RuntimeError(f"{len(unknown)} requests were billed that no entry names")


def _measured(file: Path, trial: Trial, outcome: Outcome, billed: Invoice) -> Measured:
    booked = booked_by(file, trial.tenant, outcome.begun_at_ns)
    refused_at_ns = first_refusal_at_ns(file, trial.tenant) or time.time_ns()
    booked_nanos = sum(entry.nanos for entry in booked)
    workload = trial.workload
    return Measured(
        outcome=outcome,
        cap_nanos=workload.cap_nanos,
        billed_nanos=sum(billed.nanos[entry.id] for entry in booked if entry.id in billed.nanos),
        booked_nanos=booked_nanos,
        used_nanos=sum(e.nanos for e in booked if _was_admitted(e, billed, refused_at_ns)),
        settled_nanos=sum(e.nanos for e in booked if e.settled_at_ns <= refused_at_ns),
        could_fit=_could_fit(workload, outcome, workload.cap_nanos - booked_nanos),
    )


def _was_admitted(entry: Booked, billed: Invoice, refused_at_ns: int) -> bool:
    """Say whether a request had been admitted when the first one was refused.

    It had if the provider had it by then. Where many come at once the refusal is decided before
    the admitted ones are forwarded: of those that arrive right afterwards the instant on record
    decides, which alone would not do, for it may be that at which a request began to wait.
    """
    arrived_at_ns = billed.arrived_at_ns.get(entry.id)
    if arrived_at_ns is None or arrived_at_ns > refused_at_ns + FORWARDED_WITHIN_NS:
        return False
    return arrived_at_ns <= refused_at_ns or entry.admitted_at_ns <= refused_at_ns


def _could_fit(workload: Workload, outcome: Outcome, left_nanos: int) -> int:
    """Count refused requests that what was left in the end would have paid for together."""
    costs = sorted(
        workload.cost_nanos(workload.drawn_tokens(seed)) for seed in outcome.refused_seeds
    )
    count = 0
    for cost_nanos in costs:
        left_nanos -= cost_nanos
        if left_nanos < 0:
            break
        count += 1
    return count


def _rows(workload: Workload, runs: Sequence[Measured]) -> list[Row]:
    if not runs:
        beside = "the simulated provider does not know its directive"
        return [Row(f"S14 {workload.name}", "not run", beside=beside)]
    return [_overspend_row(workload, runs), _used_row(workload, runs), _cut_row(workload, runs)]


def _overspend_row(workload: Workload, runs: Sequence[Measured]) -> Row:
    above = min(run.booked_above_bill for run in runs)
    beside = (
        f"ledger {above:+.2f} % of the cap to the bill; cap {workload.cap_nanos / 1e9:.6f}, "
        f"{len(runs)} seeds, {_mean(run.outcome.wall_s for run in runs):.0f} s"
    )
    overspend = max(run.overspend for run in runs)
    return Row(f"S14 {workload.name}: overspend", f"{overspend:.2f} %", target="0", beside=beside)


def _used_row(workload: Workload, runs: Sequence[Measured]) -> Row:
    target = "" if workload.share_min is None else f">= {workload.share_min:g} %"
    settled = f"{_mean(run.settled for run in runs):.1f} %"
    used = f"{_mean(run.used for run in runs):.1f} %"
    beside = (
        f"floor: settled at that instant; refused {_mean_of(runs, 'refused'):.1f}, "
        f"could fit {_mean(run.could_fit for run in runs):.1f}"
    )
    return Row("   used at the first refusal", used, settled, target=target, beside=beside)


def _cut_row(workload: Workload, runs: Sequence[Measured]) -> Row:
    target = "" if workload.cut_max is None else f"<= {workload.cut_max:g} %"
    if workload.cuts_max is not None:
        target = f"<= {workload.cuts_max} streams"
    most = max(run.outcome.count("cut") for run in runs)
    beside = f"at most {most} in a run; completed {_mean_of(runs, 'completed'):.1f}"
    beside += "".join(f"; {end} {count}" for end, count in _other_ends(runs).items())
    cut = f"{_mean(run.cut for run in runs):.2f} %"
    return Row("   cut of those admitted", cut, target=target, beside=beside)


def _other_ends(runs: Sequence[Measured]) -> dict[str, int]:
    """Count what should not happen at all, over all runs."""
    ends: dict[str, int] = {}
    for run in runs:
        for end, count in run.outcome.ends.items():
            if end not in {"completed", "cut", "refused"}:
                ends[end] = ends.get(end, 0) + count
    return ends


def _mean_of(runs: Sequence[Measured], end: str) -> float:
    return _mean(run.outcome.count(end) for run in runs)


def _mean(figures: Iterable[float]) -> float:
    return statistics.mean(list(figures))
