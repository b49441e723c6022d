"""Entries of the price catalogue `genai-prices` in the form of the price sheet."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Final

from genai_prices.data_units import unit_data
from genai_prices.types import (
    ClauseEquals,
    ClauseOr,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)
from genai_prices.units import UnitRegistry
from genai_prices.validation import validate_model_price

from controlplane.pricing.entry import (
    Condition,
    Daily,
    DatedPrice,
    ModelEntry,
    Rates,
    Since,
    Tier,
    TieredRate,
    Variant,
)
from controlplane.pricing.rate import picos_per_unit

_REGISTRY: Final = UnitRegistry(unit_data)
_DAY_ONE: Final = date(1970, 1, 1)
_NANOS_PER_MICROSECOND: Final = 1_000

# `ModelInfo.calc_price` bills these transcriptions for at least ten seconds.
_AUDIO_SECONDS_MIN: Final = {
    ("groq", "whisper-large-v3"): 10,
    ("groq", "whisper-large-v3-turbo"): 10,
}


class UnsupportedPrice(ValueError):
    """A catalogue price has a form that the sheet cannot say."""


def model_entry(provider: Provider, model: ModelInfo) -> ModelEntry | None:
    """Compile the catalogue's prices of a model, `None` if it has none.

    An empty price is no price: only a written 0 is 0.

    Raises `UnsupportedPrice` or `PriceFormatError` saying what the sheet cannot hold.
    """
    dated = _dated(model)
    priced = [bool(_listed(each.prices)) for each in dated]
    if not any(priced):
        return None
    if not all(priced):
        raise UnsupportedPrice("it has no price under some conditions")
    prices = tuple(DatedPrice(_rates(each.prices), _condition(each)) for each in dated)
    searched = any("web_searches" in price.rates for price in prices)
    return ModelEntry(
        provider=provider.id,
        model=model.id,
        prices=prices,
        variants=tuple(
            _variant(each) for each in model.price_variants or () if _listed(each.prices)
        ),
        aliases=_aliases(provider, model),
        context_window=model.context_window,
        audio_seconds_min=_AUDIO_SECONDS_MIN.get((provider.id, model.id), 0),
        searches_unasked=searched and _is_search_model(provider.id, model.id),
    )


def unit_traits() -> dict[str, list[str]]:
    """Describe every unit of the catalogue by its traits, so that the engine can check its own."""
    return {name: sorted(unit["dimensions"].values()) for name, unit in unit_data.items()}


def _dated(model: ModelInfo) -> list[ConditionalPrice]:
    if isinstance(model.prices, ModelPrice):
        return [ConditionalPrice(prices=model.prices)]
    return model.prices


def _listed(prices: ModelPrice) -> dict[str, Decimal | TieredPrices]:
    return {key: price for key, price in vars(prices).items() if price is not None}


def _rates(prices: ModelPrice) -> Rates:
    listed = _listed(prices)
    try:
        validate_model_price(set(listed), _REGISTRY)
    except ValueError as error:
        raise UnsupportedPrice(str(error)) from error
    return _unchecked_rates(prices)


def _unchecked_rates(prices: ModelPrice) -> Rates:
    rates: Rates = {}
    for key, price in _listed(prices).items():
        unit = _REGISTRY.unit_for_price_key(key)
        rates[unit.usage_key] = _rate(price, unit.per)
    return rates


def _rate(price: Decimal | TieredPrices, per: int) -> int | TieredRate:
    if not isinstance(price, TieredPrices):
        return picos_per_unit(Decimal(price), per)
    by_start = {tier.start: picos_per_unit(tier.price, per) for tier in price.tiers}
    tiers = tuple(Tier(above, picos) for above, picos in sorted(by_start.items()))
    return TieredRate(picos_per_unit(price.base, per), tiers)


def _condition(of: ConditionalPrice | PriceVariant) -> Condition | None:
    match of.constraint:
        case None:
            return None
        case StartDateConstraint(start_date=start):
            return {"since": Since((start - _DAY_ONE).days)}
        case TimeOfDateConstraint(start_time=start, end_time=end):
            return {"daily": Daily(_time_ns(start), _time_ns(end))}
        case other:
            raise UnsupportedPrice(f"its condition {other!r} is unknown")


def _time_ns(of_day: time) -> int:
    """Count the nanoseconds of a UTC day up to a time; times without a zone are UTC."""
    instant = datetime.combine(_DAY_ONE, of_day, of_day.tzinfo or UTC).astimezone(UTC)
    since_midnight = timedelta(
        hours=instant.hour,
        minutes=instant.minute,
        seconds=instant.second,
        microseconds=instant.microsecond,
    )
    return since_midnight // timedelta(microseconds=1) * _NANOS_PER_MICROSECOND


def _variant(variant: PriceVariant) -> Variant:
    return Variant(dict(variant.when), _unchecked_rates(variant.prices), _condition(variant))


def _aliases(provider: Provider, model: ModelInfo) -> tuple[str, ...]:
    """Find the other exact names that the catalogue gives this model and no other."""
    clauses = model.match.or_ if isinstance(model.match, ClauseOr) else [model.match]
    names = {clause.equals for clause in clauses if isinstance(clause, ClauseEquals)}
    taken = {each.id for each in provider.models}
    searches = _is_search_model(provider.id, model.id)
    return tuple(
        sorted(
            name
            for name in names - taken
            if provider.find_model(name) is model
            and _is_search_model(provider.id, name) == searches
        )
    )


def _is_search_model(provider: str, name: str) -> bool:
    """Tell whether a model searches on its own; no token count bounds what that costs."""
    return provider == "perplexity" or "search-preview" in name or "search-api" in name
