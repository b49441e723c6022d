"""Catalogue entries in the form of the price sheet."""

from datetime import UTC, date, time, timedelta, timezone
from decimal import Decimal

import pytest
from genai_prices.types import (
    ClauseEquals,
    ClauseOr,
    ClauseStartsWith,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from controlplane.pricing.catalogue import UnsupportedPrice, model_entry
from controlplane.pricing.entry import Daily, ModelEntry, Since, TieredRate
from controlplane.pricing.entry import Tier as SheetTier

LISTED = ModelPrice(input_mtok=Decimal("0.15"), output_mtok=Decimal("0.6"))


def entry_of(*models: ModelInfo, provider: str = "p") -> ModelEntry | None:
    home = Provider(id=provider, name="P", api_pattern="", models=list(models))
    return model_entry(home, models[0])


def model(prices: ModelPrice | list[ConditionalPrice], **fields: object) -> ModelInfo:
    given = {"id": "m", "match": ClauseEquals("m"), "prices": prices} | fields
    return ModelInfo(**given)


def test_prices_for_a_million_tokens_become_pico_units_for_one() -> None:
    entry = entry_of(model(LISTED, context_window=1000))
    assert entry is not None
    assert entry.prices[0].rates == {"input_tokens": 150_000, "output_tokens": 600_000}
    assert (entry.context_window, entry.audio_seconds_min, entry.searches_unasked) == (
        1000,
        0,
        False,
    )


def test_tiers_keep_their_thresholds_and_the_last_of_equal_ones_counts() -> None:
    tiers = [Tier(200, Decimal(2)), Tier(200, Decimal(3)), Tier(100, Decimal(1))]
    entry = entry_of(model(ModelPrice(input_mtok=TieredPrices(Decimal(0), tiers))))
    assert entry is not None
    assert entry.prices[0].rates == {
        "input_tokens": TieredRate(0, (SheetTier(100, 1_000_000), SheetTier(200, 3_000_000)))
    }


def test_conditions_become_days_and_nanoseconds_of_the_utc_day() -> None:
    east = timezone(timedelta(hours=8))
    entry = entry_of(
        model(
            [
                ConditionalPrice(prices=LISTED),
                ConditionalPrice(StartDateConstraint(date(1970, 1, 3)), prices=LISTED),
                ConditionalPrice(
                    TimeOfDateConstraint(time(0, 30, tzinfo=UTC), time(16, 30)), prices=LISTED
                ),
                ConditionalPrice(
                    TimeOfDateConstraint(time(4, tzinfo=east), time(9, 0, 1, 2, east)),
                    prices=LISTED,
                ),
            ]
        )
    )
    assert entry is not None
    hour_ns = 3_600 * 10**9
    assert [price.when for price in entry.prices] == [
        None,
        {"since": Since(2)},
        {"daily": Daily(hour_ns // 2, 16 * hour_ns + hour_ns // 2)},
        {"daily": Daily(20 * hour_ns, hour_ns + 10**9 + 2_000)},
    ]


def test_variants_keep_context_and_condition_and_those_without_a_price_are_dropped() -> None:
    since = StartDateConstraint(date(1970, 1, 2))
    variants = [
        PriceVariant({"processing": "batch"}, ModelPrice(input_mtok=Decimal("0.075")), since),
        PriceVariant({"service_tier": "default"}, ModelPrice()),
    ]
    entry = entry_of(model(LISTED, price_variants=variants))
    assert entry is not None
    (batch,) = entry.variants
    assert (batch.context, batch.rates) == ({"processing": "batch"}, {"input_tokens": 75_000})
    assert batch.when == {"since": Since(1)}


def test_an_empty_price_is_no_price_and_a_written_zero_is() -> None:
    assert entry_of(model(ModelPrice())) is None
    free = entry_of(model(ModelPrice(input_mtok=Decimal(0))))
    assert free is not None
    assert free.prices[0].rates == {"input_tokens": 0}


@pytest.mark.parametrize(
    "prices",
    [
        [ConditionalPrice(prices=LISTED), ConditionalPrice(prices=ModelPrice())],
        ModelPrice(cache_read_mtok=Decimal(1)),
        ModelPrice(invented_mtok=Decimal(1)),
        ModelPrice(input_mtok=Decimal(-1)),
    ],
    ids=["priced only sometimes", "a part without its whole", "unknown unit", "negative"],
)
def test_prices_that_the_sheet_cannot_say_are_unsupported(
    prices: ModelPrice | list[ConditionalPrice],
) -> None:
    with pytest.raises(ValueError, match="price"):
        entry_of(model(prices))


def test_an_unknown_condition_is_unsupported() -> None:
    full_moon = ConditionalPrice("at full moon", prices=LISTED)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedPrice, match="full moon"):
        entry_of(model([full_moon]))


def test_aliases_are_the_exact_names_that_lead_to_this_model_alone() -> None:
    match = ClauseOr(
        [ClauseEquals("m"), ClauseEquals("m-2"), ClauseEquals("n"), ClauseStartsWith("x")]
    )
    entry = entry_of(model(LISTED, match=match), model(LISTED, id="n", match=ClauseEquals("n")))
    assert entry is not None
    assert entry.aliases == ("m-2",)


def test_a_model_that_searches_on_its_own_at_a_price_is_marked() -> None:
    searching = ModelPrice(input_mtok=Decimal(1), web_searches_kcount=Decimal(10))
    match = ClauseOr([ClauseEquals("m"), ClauseEquals("m-search-preview")])
    marks = [
        (provider, name, priced.searches_unasked, priced.aliases)
        for provider, name in (("p", "m"), ("p", "m-search-preview"), ("perplexity", "m"))
        if (priced := entry_of(model(searching, id=name, match=match), provider=provider))
    ]
    assert marks == [
        ("p", "m", False, ()),
        ("p", "m-search-preview", True, ()),
        ("perplexity", "m", True, ("m-search-preview",)),
    ]
