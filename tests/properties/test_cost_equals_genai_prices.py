"""The engine prices every model of the catalogue as `genai-prices` does, fed with rounded prices."""

import math
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from genai_prices.data import providers
from genai_prices.data_units import unit_data
from genai_prices.types import (
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
)
from genai_prices.types import Usage as CatalogueUsage
from genai_prices.units import UnitRegistry

from controlplane.pricing.sheet import CompiledSheet, compile_sheet
from core_rs import EngineError, PriceSheet, Usage

FULL = os.environ.get("COMPTROLLER_TEST_FULL") == "1"
SEED = 20_261_122
SLICE = 150
MIXES = 20 if FULL else 4

REGISTRY = UnitRegistry(unit_data)
REPORTED = [name for name in unit_data if name != "requests"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@pytest.fixture(scope="module")
def compiled() -> CompiledSheet:
    return compile_sheet()


@pytest.fixture(scope="module")
def sheet(compiled: CompiledSheet) -> PriceSheet:
    return PriceSheet(compiled.json)


def test_every_priced_model_of_the_catalogue_is_in_the_sheet(
    compiled: CompiledSheet, sheet: PriceSheet
) -> None:
    assert compiled.unsupported == ()
    unpriced = set(compiled.unpriced)
    for provider in providers:
        for model in provider.models:
            found = sheet.find(provider.id, model.id)
            assert (found is None) == ((provider.id, model.id) in unpriced), model.id


@pytest.mark.timeout(1200 if FULL else 120)
def test_the_engine_costs_what_the_catalogue_costs_to_the_nano_unit(sheet: PriceSheet) -> None:
    rng = random.Random(SEED)
    outcomes = {"paid": 0, "refused": 0, "in context": 0, "by date": 0}
    for provider, model in sampled_models(rng):
        index = sheet.find(provider.id, model.id)
        assert index is not None
        twin = rounded(model)
        home = replace(provider, models=[twin])
        for _ in range(MIXES):
            counts = any_counts(rng, model)
            at = any_instant(rng, model)
            context = any_context(rng, model)
            ours = engine_cost(sheet, index, counts, at, context)
            theirs = catalogue_cost(home, twin, counts, at, context)
            assert ours == theirs, (provider.id, model.id, counts, at, context)
            outcomes["refused"] += ours is None
            outcomes["paid"] += ours is not None and ours > 0
            outcomes["in context"] += context is not None
            outcomes["by date"] += not isinstance(model.prices, ModelPrice)
    assert min(outcomes.values()) >= 10, outcomes


def sampled_models(rng: random.Random) -> list[tuple[Provider, ModelInfo]]:
    priced = [
        (provider, model)
        for provider in providers
        for model in provider.models
        if any(listed(each.prices) for each in dated(model))
    ]
    if FULL:
        return priced
    special = [each for each in priced if each[1].price_variants or len(dated(each[1])) > 1]
    return [*rng.sample(special, SLICE), *rng.sample(priced, SLICE)]


def engine_cost(
    sheet: PriceSheet, index: int, counts: dict[str, int], at: datetime, context: dict | None
) -> int | None:
    at_wall_ns = (at - EPOCH) // MICROSECOND * 1_000
    try:
        return sheet.cost(index, Usage(**counts), at_wall_ns, context)
    except EngineError as error:
        if error.code in ("contradictory_usage", "invalid_price"):
            return None
        raise


def catalogue_cost(
    provider: Provider, model: ModelInfo, counts: dict[str, int], at: datetime, context: dict | None
) -> int | None:
    # The engine takes a count that was not given as 0; the catalogue wants the 0 written.
    usage = CatalogueUsage(**{name: counts.get(name, 0) for name in REPORTED})
    try:
        price = model.calc_price(
            usage, provider, genai_request_timestamp=at, price_context=context
        ).total_price
    except ValueError:
        return None
    return math.ceil(Fraction(price) * 10**9)


def rounded(model: ModelInfo) -> ModelInfo:
    """The same model with prices rounded up to whole pico units for each priced unit."""
    prices = [replace(each, prices=rounded_prices(each.prices)) for each in dated(model)]
    variants = [
        replace(each, prices=rounded_prices(each.prices)) for each in model.price_variants or ()
    ]
    return replace(model, prices=prices, price_variants=variants)


def rounded_prices(prices: ModelPrice) -> ModelPrice:
    return ModelPrice(**{key: rounded_price(key, price) for key, price in listed(prices).items()})


def rounded_price(key: str, price: Decimal | TieredPrices) -> Decimal | TieredPrices:
    if isinstance(price, TieredPrices):
        tiers = [Tier(tier.start, rounded_price(key, tier.price)) for tier in price.tiers]
        return TieredPrices(rounded_price(key, price.base), tiers)
    per = REGISTRY.unit_for_price_key(key).per
    picos = math.ceil(Fraction(price) * 10**12 / per)
    return Decimal(picos * per).scaleb(-12)


def any_counts(rng: random.Random, model: ModelInfo) -> dict[str, int]:
    """Counts whose parts fit their wholes; now and then one that contradicts the others."""
    names = sorted(priced_names(model) | set(rng.sample(REPORTED, 3)))
    own = {name: round(10 ** rng.uniform(-1, 6)) for name in names if rng.random() < 0.7}
    counts = {
        name: sum(own[part] for part in own if part == name or is_part(part, name))
        for name in REPORTED
    }
    if "input_tokens" in counts and rng.random() < 0.3:
        counts["input_tokens"] = near_a_tier(rng, model, counts["input_tokens"])
    if rng.random() < 0.15:
        counts[rng.choice(names)] = rng.randrange(10)
    return {name: count for name, count in counts.items() if count}


def near_a_tier(rng: random.Random, model: ModelInfo, least: int) -> int:
    starts = [
        tier.start
        for each in dated(model)
        for price in listed(each.prices).values()
        if isinstance(price, TieredPrices)
        for tier in price.tiers
    ]
    near = [start + off for start in starts for off in (0, 1) if start + off >= least]
    return rng.choice(near or [least])


def is_part(part: str, whole: str) -> bool:
    return whole in REGISTRY.ancestor_usage_keys(part)


def priced_names(model: ModelInfo) -> set[str]:
    priced = [each.prices for each in (*dated(model), *(model.price_variants or ()))]
    names = {
        REGISTRY.unit_for_price_key(key).usage_key for prices in priced for key in listed(prices)
    }
    return names - {"requests"}


def any_instant(rng: random.Random, model: ModelInfo) -> datetime:
    anywhere = datetime(2023, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(5 * 365 * 86_400))
    switches = list(switches_of(model, anywhere))
    if not switches or rng.random() < 0.3:
        return anywhere
    return rng.choice(switches) + rng.choice((-1, 0, 1)) * MICROSECOND


def switches_of(model: ModelInfo, day: datetime) -> Iterator[datetime]:
    """Instants at which a price begins or ends: of daily prices, those of a given day."""
    for each in (*dated(model), *(model.price_variants or ())):
        constraint = each.constraint
        if isinstance(constraint, StartDateConstraint):
            yield datetime.combine(constraint.start_date, datetime.min.time(), UTC)
        elif constraint is not None:
            for time in (constraint.start_time, constraint.end_time):
                yield datetime.combine(day.date(), time, time.tzinfo or UTC)


def any_context(rng: random.Random, model: ModelInfo) -> dict[str, str] | None:
    variants = model.price_variants or []
    if not variants or rng.random() < 0.3:
        return None
    context = dict(rng.choice(variants).when)
    for variant in rng.sample(variants, rng.randrange(len(variants))):
        context.update(variant.when)
    return context | ({"unknown": "value"} if rng.random() < 0.2 else {})


def dated(model: ModelInfo) -> list[ConditionalPrice]:
    if isinstance(model.prices, ModelPrice):
        return [ConditionalPrice(prices=model.prices)]
    return model.prices


def listed(prices: ModelPrice) -> dict[str, Decimal | TieredPrices]:
    return {key: price for key, price in vars(prices).items() if price is not None}
