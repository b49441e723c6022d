"""The operator's own prices, entered as decimal text in settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controlplane.errors import InvalidInput
from controlplane.pricing.entry import DatedPrice, ModelEntry, Rates
from controlplane.pricing.rate import TOKENS_PER_MILLION, PriceFormatError, parse_price

OVERRIDES_MAX: Final = 10_000
NAME_BYTES_MAX: Final = 200
CONTEXT_WINDOW_MAX: Final = 2**40


@dataclass(frozen=True, slots=True)
class PriceOverride:
    """The price of one model: for each request, for each token, or both.

    Prices are decimal text in the sheet's currency, for one request or for a million tokens. A
    model that costs nothing says so with `"0"`. Token prices name input and output; cached input
    costs what input costs unless it has a price of its own.
    """

    provider: str
    model: str
    request: str | None = None
    input_per_million: str | None = None
    output_per_million: str | None = None
    cache_read_per_million: str | None = None
    cache_write_per_million: str | None = None
    context_window: int | None = None


def compile_override(override: PriceOverride) -> ModelEntry:
    """Compile one operator's price.

    Raises `InvalidInput` if it is incomplete or has a value that is no price.
    """
    _check_names(override)
    _check_complete(override)
    if not 0 <= (override.context_window or 0) <= CONTEXT_WINDOW_MAX:
        raise _invalid(override, "the context window is out of range", "context_window")
    return ModelEntry(
        provider=override.provider,
        model=override.model,
        prices=(DatedPrice(_rates(override)),),
        context_window=override.context_window,
    )


def compile_overrides(overrides: Sequence[PriceOverride]) -> dict[tuple[str, str], ModelEntry]:
    """Compile the operator's prices by (provider, model).

    Raises `InvalidInput` as `compile_override` does, and for a model that is priced twice.
    """
    if len(overrides) > OVERRIDES_MAX:
        raise InvalidInput(f"there are more than {OVERRIDES_MAX} prices")
    entries: dict[tuple[str, str], ModelEntry] = {}
    for override in overrides:
        entry = compile_override(override)
        if entry.name in entries:
            raise _invalid(override, "it is priced twice", "model")
        entries[entry.name] = entry
    return entries


def _check_names(override: PriceOverride) -> None:
    for field, name in (("provider", override.provider), ("model", override.model)):
        if not 0 < len(name.encode()) <= NAME_BYTES_MAX:
            raise _invalid(override, "the name is empty or too long", field)


def _check_complete(override: PriceOverride) -> None:
    tokens = (override.input_per_million, override.output_per_million)
    cached = (override.cache_read_per_million, override.cache_write_per_million)
    if override.request is None and tokens == (None, None):
        raise _invalid(override, "give a price for each request or for tokens", "request")
    if None in tokens and (tokens != (None, None) or cached != (None, None)):
        raise _invalid(override, "token prices need input and output", "input_per_million")


def _rates(override: PriceOverride) -> Rates:
    priced = (
        ("requests", "request", override.request, 1),
        ("input_tokens", "input_per_million", override.input_per_million, TOKENS_PER_MILLION),
        ("output_tokens", "output_per_million", override.output_per_million, TOKENS_PER_MILLION),
        (
            "cache_read_tokens",
            "cache_read_per_million",
            override.cache_read_per_million,
            TOKENS_PER_MILLION,
        ),
        (
            "cache_write_tokens",
            "cache_write_per_million",
            override.cache_write_per_million,
            TOKENS_PER_MILLION,
        ),
    )
    rates: Rates = {}
    for unit, field, text, per in priced:
        if text is None:
            continue
        try:
            rates[unit] = parse_price(text, per)
        except PriceFormatError as error:
            raise _invalid(override, str(error), field) from error
    return rates


def _invalid(override: PriceOverride, why: str, field: str) -> InvalidInput:
    return InvalidInput(f"price of {override.provider} {override.model}: {why}", field=(field,))
