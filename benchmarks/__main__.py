"""`make bench`: measure this machine and print each figure beside its floor and its target.

    python -m benchmarks [S1 S5 S6 S7 S11a S11b S11c S14 S15 dashboards]      only the named ones

Times are CPU microseconds, user and system, of the server's processes; each ratio is the median of
rounds in which both were measured in turn. Server on one core, load and provider on the other.
S11c reads ten million rows, which it makes once and keeps (`decision_rows`): ten gigabytes, or
fewer with `COMPTROLLER_BENCH_ROWS`; with `COMPTROLLER_TEST_DATABASE_URL` on PostgreSQL too.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    admission,
    beside_dashboards,
    decision_pages,
    fanout,
    freshness,
    governance,
    scale,
    small_queries,
    streaming,
    truth,
)
from benchmarks.installation import provider
from benchmarks.table import Row, print_rows

Measure = Callable[[Path, int], list[Row]]
# Each stands for the figures of the design that it measures.
BENCHMARKS: dict[str, tuple[str, Measure]] = {
    "S1": ("S1, S4: CPU µs a request, 1 KB in one piece", governance.measure),
    "S5": ("S5: µs an admission over 12 limits", admission.measure),
    "S6": ("S6: µs of CPU a request decided, by size of the installation", scale.measure),
    "S7": ("S7: CPU µs a chunk of a stream", streaming.measure),
    "S11a": ("S11: small queries a second; floor: Strawberry's controller", small_queries.measure),
    "S11b": ("S11: snapshots to 100 listeners; floor: Strawberry's handler", fanout.measure),
    "S11c": ("S11: a page of 50; floor: a query of one row", decision_pages.measure),
    "S14": ("S14: truth in both directions; floor: settled alone", truth.measure),
    "S15": ("S15: from settlement to subscribers", freshness.measure),
    "dashboards": ("The proxy beside dashboards; floor: without", beside_dashboards.measure),
}


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all there are so far; the others follow with their issues."""
    with tempfile.TemporaryDirectory(prefix="comptroller-bench-") as folder, provider() as port:
        for name in names or BENCHMARKS:
            title, measure = BENCHMARKS[name]
            own = Path(folder) / name
            own.mkdir()
            print_rows(title, measure(own, port))


if __name__ == "__main__":
    main(sys.argv[1:])
