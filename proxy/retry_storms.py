"""Cutting off a caller that repeats a request that keeps failing.

A key's request that is byte for byte the same as ones that failed or were refused is let through
`retry_storm_max` times in 60 seconds; then it gets 429 until the oldest of those failures is 60
seconds old. What is cut off here is not counted as a failure, so that `Retry-After` stays true.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from proxy.errors import Problem

WINDOW_S: Final = 60
WINDOW_NS: Final = WINDOW_S * 1_000_000_000
# The most that `retry_storm_max` can be: so many failures of one request are kept.
FAILURES_MAX: Final = 1_000
# Requests and failures kept of all keys. Beyond it the longest unrepeated request is forgotten:
# it may then be repeated once more often than it should.
REQUESTS_KEPT_MAX: Final = 65_536
FAILURES_KEPT_MAX: Final = 1_000_000
NANOS_PER_S: Final = 1_000_000_000

_Request = tuple[str, bytes]


class RetryStorms:
    """Failures of the last minute, by key and body. Owned by one event loop."""

    def __init__(
        self,
        *,
        requests_kept_max: int = REQUESTS_KEPT_MAX,
        failures_kept_max: int = FAILURES_KEPT_MAX,
    ) -> None:
        self._requests_kept_max = requests_kept_max
        self._failures_kept_max = failures_kept_max
        # The request that failed last stands last.
        self._failures: OrderedDict[_Request, deque[int]] = OrderedDict()
        self._failures_kept = 0

    def __len__(self) -> int:
        """Count the requests that are kept."""
        return len(self._failures)

    def check(
        self, key_id: str, fingerprint: bytes, retry_storm_max: int, mono_ns: int
    ) -> int | None:
        """Give the nanoseconds until the request may come again; None: it may come now.

        Raises ValueError for a maximum that is not 1 to `FAILURES_MAX`.
        """
        if not 1 <= retry_storm_max <= FAILURES_MAX:
            raise ValueError(f"retry_storm_max must be 1 to {FAILURES_MAX}, not {retry_storm_max}")
        failures = self._failures.get((key_id, fingerprint))
        if failures is None or len(failures) < retry_storm_max:
            return None
        left_ns = failures[-retry_storm_max] + WINDOW_NS - mono_ns
        return left_ns if left_ns > 0 else None

    def failed(self, key_id: str, fingerprint: bytes, mono_ns: int) -> None:
        """Count a request that failed or was refused; not one that `check` cut off."""
        request = (key_id, fingerprint)
        failures = self._failures.setdefault(request, deque())
        self._failures.move_to_end(request)
        failures.append(mono_ns)
        self._failures_kept += 1
        if len(failures) > FAILURES_MAX:
            failures.popleft()
            self._failures_kept -= 1
        self._forget_old(mono_ns)

    def succeeded(self, key_id: str, fingerprint: bytes) -> None:
        """Forget the failures of a request that has been answered."""
        failures = self._failures.pop((key_id, fingerprint), None)
        self._failures_kept -= len(failures or ())

    def _forget_old(self, mono_ns: int) -> None:
        """Forget what last failed a minute ago, and the oldest where there is too much."""
        while self._failures:
            request, failures = next(iter(self._failures.items()))
            is_over = (
                len(self._failures) > self._requests_kept_max
                or self._failures_kept > self._failures_kept_max
            )
            if not is_over and failures[-1] + WINDOW_NS > mono_ns:
                return
            self.succeeded(*request)


def retry_storm(retry_after_ns: int) -> Problem:
    """Make the problem of a request that was repeated too often after it failed."""
    retry_after_s = -(-retry_after_ns // NANOS_PER_S)
    return Problem(
        429,
        "retry_storm",
        f"The same request failed too often within {WINDOW_S} s and is not tried again before "
        f"{retry_after_s} s have passed. Change it, or find out why it fails.",
        retry_after_s=retry_after_s,
    )
