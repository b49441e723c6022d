"""The catalogue: which models the simulated provider serves and what each costs.

Real names carry the list prices that `genai-prices` has for them; a test compares the two.
"""

import re
from dataclasses import dataclass
from decimal import Decimal

PICOS_PER_UNIT = 10**12
TOKENS_PER_PRICE = 10**6
FLAT_NAME = re.compile(r"sim-flat-(\d{1,6}(?:\.\d{1,9})?)")
ECHO_MODEL = "bench-echo"


@dataclass(frozen=True, slots=True)
class Model:
    """One model: its tokenizer, its limits and its prices in US dollars.

    Prices are integers in pico dollars, per token and per request; a request pays both kinds.
    """

    name: str
    vocabulary: str = "o200k_base"
    input_price_picos: int = 0
    output_price_picos: int = 0
    request_price_picos: int = 0
    context_tokens_max: int = 128_000
    output_tokens_max: int = 16_384

    def cost_nanos(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Price one request in nano dollars: add up in picos, divide once, round up."""
        picos = (
            self.request_price_picos
            + prompt_tokens * self.input_price_picos
            + completion_tokens * self.output_price_picos
        )
        return -(-picos // 1000)


class Catalogue:
    """The models served, by exact name; `sim-flat-AMOUNT` exists for every amount."""

    def __init__(self, models: tuple[Model, ...]) -> None:
        self._models = {model.name: model for model in models}

    def find(self, name: str) -> Model | None:
        """Look a model up by its exact name."""
        return self._models.get(name) or _flat_model(name)

    def names(self) -> list[str]:
        """List the names in the order of the catalogue."""
        return list(self._models)


def token_priced(
    name: str,
    input_price: str,
    output_price: str,
    *,
    vocabulary: str = "o200k_base",
    context_tokens_max: int = 128_000,
    output_tokens_max: int = 16_384,
) -> Model:
    """Make a model priced in dollars per million input and output tokens.

    Raises ValueError for a price that is negative or finer than one pico dollar a token.
    """
    return Model(
        name,
        vocabulary=vocabulary,
        input_price_picos=exact_picos(input_price, TOKENS_PER_PRICE),
        output_price_picos=exact_picos(output_price, TOKENS_PER_PRICE),
        context_tokens_max=context_tokens_max,
        output_tokens_max=output_tokens_max,
    )


def exact_picos(amount: str, divisor: int = 1) -> int:
    """Turn a decimal amount of dollars into pico dollars per one of `divisor`.

    Raises ValueError where that is negative or not a whole number.
    """
    picos = Decimal(amount) * PICOS_PER_UNIT / divisor
    if picos < 0 or picos != picos.to_integral_value():
        raise ValueError(f"{amount} is not a whole, positive number of pico dollars")
    return int(picos)


def _flat_model(name: str) -> Model | None:
    match = FLAT_NAME.fullmatch(name)
    return match and Model(name, request_price_picos=exact_picos(match[1]))


CATALOGUE: tuple[Model, ...] = (
    token_priced("sim-small", "0.15", "0.60"),
    token_priced("sim-large", "2.50", "10.00"),
    token_priced("gpt-4o-mini", "0.15", "0.60"),
    token_priced("gpt-4o", "2.50", "10.00"),
    token_priced("gpt-4.1", "2.00", "8.00", context_tokens_max=1_000_000, output_tokens_max=32_768),
    Model("sim-flat-0.05", request_price_picos=exact_picos("0.05")),
    Model("sim-flat-0.001", request_price_picos=exact_picos("0.001")),
    token_priced(ECHO_MODEL, "0.15", "0.60"),
)
