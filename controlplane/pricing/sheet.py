"""Compile the price sheet: the catalogue `genai-prices` and the operator's own prices, once.

The sheet is canonical JSON that `core_rs.PriceSheet` loads. Every model is named exactly; catalogue
patterns serve only here, to find other exact names of a model. Rates are integer pico units of
currency per unit, rounded up once. The SHA-256 of the sheet names the price version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import genai_prices
import msgspec
from genai_prices.data import providers as catalogue_providers
from genai_prices.types import Provider

from controlplane.currencies import BASE_CURRENCY
from controlplane.pricing.catalogue import model_entry, unit_traits
from controlplane.pricing.entry import ModelEntry
from controlplane.pricing.override import PriceOverride, compile_overrides

FORMAT: Final = 1
CURRENCY: Final = BASE_CURRENCY


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A model left out because its price has a form that the sheet cannot say."""

    provider: str
    model: str
    why: str


@dataclass(frozen=True, slots=True)
class CompiledSheet:
    """A price sheet ready to load.

    `version` is the SHA-256 of `json`. Models in `unsupported` and `unpriced` (no price in the
    catalogue) are absent from the sheet and therefore not served.
    """

    json: bytes
    version: str
    unsupported: tuple[Unsupported, ...]
    unpriced: tuple[tuple[str, str], ...]


def compile_sheet(
    overrides: Sequence[PriceOverride] = (),
    *,
    providers: Iterable[Provider] = catalogue_providers,
) -> CompiledSheet:
    """Compile catalogue and overrides; an override replaces the catalogue's prices of its model.

    Raises `InvalidInput` for an override that is incomplete, malformed or given twice.
    """
    own = compile_overrides(overrides)
    entries: list[ModelEntry] = []
    unsupported: list[Unsupported] = []
    unpriced: list[tuple[str, str]] = []
    for provider in providers:
        for model in provider.models:
            try:
                entry = model_entry(provider, model)
            except ValueError as error:
                unsupported.append(Unsupported(provider.id, model.id, str(error)))
                continue
            if entry is None:
                unpriced.append((provider.id, model.id))
            else:
                entries.append(entry)
    sheet = _encode([*_without(entries, own), *own.values()])
    version = hashlib.sha256(sheet).hexdigest()
    return CompiledSheet(sheet, version, tuple(unsupported), tuple(unpriced))


def _without(
    entries: Iterable[ModelEntry], own: dict[tuple[str, str], ModelEntry]
) -> Iterable[ModelEntry]:
    """Leave out what the operator prices, be it a model or an alias of the catalogue."""
    for entry in entries:
        if entry.name not in own:
            aliases = tuple(name for name in entry.aliases if (entry.provider, name) not in own)
            yield msgspec.structs.replace(entry, aliases=aliases)


def _encode(entries: Iterable[ModelEntry]) -> bytes:
    """Write canonical JSON: keys and models sorted, no white space, UTF-8."""
    sheet = {
        "currency": CURRENCY,
        "format": FORMAT,
        "models": sorted(entries, key=lambda entry: entry.name),
        "source": f"genai-prices {genai_prices.__version__}",
        "units": unit_traits(),
    }
    return msgspec.json.encode(sheet, order="sorted")
