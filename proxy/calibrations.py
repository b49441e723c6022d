"""By how much providers were seen to bill more than their bound, by provider and model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from proxy.routing import Deployment

RATIO_MAX: Final = 1_000


class Calibrations:
    """The ratios in force in this process; raised by what is seen, lowered only by an operator."""

    def __init__(self) -> None:
        self._ratios: dict[tuple[str, str], int] = {}

    def replace(self, ratios: Mapping[tuple[str, str], int]) -> None:
        """Put what is stored in force."""
        self._ratios = dict(ratios)

    def of(self, deployment: Deployment) -> int:
        """Tell what the bounds of a deployment are multiplied by, from 1."""
        return self._ratios.get((deployment.provider, deployment.model), 1)

    def raise_to(self, deployment: Deployment, ratio: int) -> int | None:
        """Raise a ratio to what was seen; give the new one if that is more."""
        ratio = min(ratio, RATIO_MAX)
        if ratio <= self.of(deployment):
            return None
        self._ratios[deployment.provider, deployment.model] = ratio
        return ratio
