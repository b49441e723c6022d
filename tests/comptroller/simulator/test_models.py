"""The catalogue's real names cost what `genai-prices` says."""

from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price

from comptroller.simulator import CATALOGUE
from comptroller.simulator.models import Catalogue

MILLION = 10**6


@pytest.mark.parametrize("name", ["gpt-4o-mini", "gpt-4o", "gpt-4.1"])
def test_real_names_have_list_prices(name: str) -> None:
    model = Catalogue(CATALOGUE).find(name)
    listed = calc_price(
        Usage(input_tokens=MILLION, output_tokens=MILLION), name, provider_id="openai"
    )
    assert Decimal(model.cost_nanos(MILLION, 0)) / 10**9 == listed.input_price
    assert Decimal(model.cost_nanos(0, MILLION)) / 10**9 == listed.output_price


def test_names_are_exact() -> None:
    catalogue = Catalogue(CATALOGUE)
    assert catalogue.find("GPT-4o") is None
    assert catalogue.find("gpt-4o ") is None
    assert catalogue.names()[:2] == ["sim-small", "sim-large"]
