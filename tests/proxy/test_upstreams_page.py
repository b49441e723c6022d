"""The page about the upstreams file names every field there is, and its example can be used."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from proxy.routing import ModelEntry, ModelPriceEntry, UpstreamEntry, read_upstreams

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "upstreams.md").read_text()


def test_every_field_is_on_the_page_and_no_other() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    fields = {
        field.name for kind in (UpstreamEntry, ModelEntry) for field in msgspec.structs.fields(kind)
    }
    assert rows == fields
    for field in msgspec.structs.fields(ModelPriceEntry):
        assert f"`{field.name}`" in PAGE


def test_the_example_can_be_read() -> None:
    [example] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    [upstream] = read_upstreams(example.encode()).upstreams
    assert [model.name for model in upstream.models] == ["gpt-4o-mini", "house-model"]
