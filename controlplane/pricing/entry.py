"""What a price sheet is made of; `core_rs/engine/src/price/file.rs` reads the same shapes."""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class Tier(msgspec.Struct, frozen=True):
    """The price of *all* units of a request with more than `above` input tokens."""

    above: int
    picos: int


class TieredRate(msgspec.Struct, frozen=True):
    """A price in pico units per unit that changes with the size of the input."""

    base: int
    tiers: tuple[Tier, ...]


Rates: TypeAlias = dict[str, int | TieredRate]
"""Prices in pico units per unit, by usage key of the catalogue."""


class Since(msgspec.Struct, frozen=True):
    """From the start of a UTC day on, counted from 1970-01-01."""

    day: int


class Daily(msgspec.Struct, frozen=True):
    """Every UTC day from an instant of the day until another, past midnight if that comes first."""

    start_ns: int
    end_ns: int


Condition: TypeAlias = dict[str, Since | Daily]
"""One condition under its name, `since` or `daily`."""


class DatedPrice(msgspec.Struct, frozen=True):
    """List prices and when they are in force; the last one in force counts, else the first."""

    rates: Rates
    when: Condition | None = None


class Variant(msgspec.Struct, frozen=True):
    """Prices that replace list prices for requests with this context."""

    context: dict[str, str]
    rates: Rates
    when: Condition | None = None


class ModelEntry(msgspec.Struct, frozen=True):
    """The prices of one model under its exact names."""

    provider: str
    model: str
    prices: tuple[DatedPrice, ...]
    variants: tuple[Variant, ...] = ()
    aliases: tuple[str, ...] = ()
    context_window: int | None = None
    audio_seconds_min: int = 0
    searches_unasked: bool = False

    @property
    def name(self) -> tuple[str, str]:
        """Provider and model."""
        return self.provider, self.model
