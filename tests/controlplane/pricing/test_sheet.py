"""The compiled sheet: canonical, named by its hash, the operator's prices first."""

import hashlib
import json

import pytest

from controlplane.errors import InvalidInput
from controlplane.pricing.override import PriceOverride
from controlplane.pricing.sheet import CompiledSheet, compile_sheet
from core_rs import PriceSheet, Usage

NOON_NS = 1_764_000_000 * 10**9
FLAT = PriceOverride("own", "flat", request="0.05")


@pytest.fixture(scope="module")
def compiled() -> CompiledSheet:
    return compile_sheet()


def test_the_sheet_is_canonical_json_and_its_hash_the_version(compiled: CompiledSheet) -> None:
    sheet = json.loads(compiled.json)
    canonical = json.dumps(sheet, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert compiled.json == canonical.encode()
    names = [(model["provider"], model["model"]) for model in sheet["models"]]
    assert names == sorted(names)
    assert compiled.version == hashlib.sha256(compiled.json).hexdigest()
    assert PriceSheet(compiled.json).version == compiled.version


def test_compiling_again_gives_the_same_version(compiled: CompiledSheet) -> None:
    assert compile_sheet() == compiled


def test_known_prices_come_out_to_the_nano_unit(compiled: CompiledSheet) -> None:
    sheet = PriceSheet(compiled.json)
    price = sheet.find("openai", "gpt-4o-mini")
    assert price is not None
    # 0.15 and 0.60 a million tokens: 1000 * 150 + 500 * 600 nano units.
    assert sheet.cost(price, Usage(input_tokens=1000, output_tokens=500), NOON_NS) == 450_000
    assert sheet.find("openai", "gpt-4o-mini-2024-07-18") == price
    assert sheet.find("openai", "gpt-4o-min") is None


def test_a_model_without_a_price_is_absent(compiled: CompiledSheet) -> None:
    assert ("google", "gemma-3") in compiled.unpriced
    assert PriceSheet(compiled.json).find("google", "gemma-3") is None


def test_an_override_adds_a_model_and_changes_the_version(compiled: CompiledSheet) -> None:
    own = compile_sheet([FLAT], providers=())
    sheet = PriceSheet(own.json)
    price = sheet.find("own", "flat")
    assert price is not None
    assert len(sheet) == 1
    assert sheet.bound(price, 10, 10, 1, NOON_NS) == 50_000_000
    assert own.version not in (compiled.version, compile_sheet(providers=()).version)


@pytest.mark.parametrize("name", ["gpt-4o-mini", "gpt-4o-mini-2024-07-18"])
def test_an_override_replaces_the_catalogue_s_price_of_exactly_this_name(name: str) -> None:
    sheet = PriceSheet(compile_sheet([PriceOverride("openai", name, request="0.05")]).json)
    own = sheet.find("openai", name)
    assert own is not None
    assert sheet.cost(own, Usage(input_tokens=9), NOON_NS) == 50_000_000
    if name != "gpt-4o-mini":
        listed = sheet.find("openai", "gpt-4o-mini")
        assert listed is not None
        assert sheet.cost(listed, Usage(input_tokens=9), NOON_NS) == 1_350


def test_an_override_that_cannot_be_used_stops_the_compilation() -> None:
    with pytest.raises(InvalidInput):
        compile_sheet([FLAT, FLAT], providers=())
