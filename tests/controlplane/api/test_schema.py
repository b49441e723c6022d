"""The committed schema is the schema."""

from __future__ import annotations

from graphql import parse

from controlplane.api.limiter import measure, refusal
from controlplane.api.schema import SDL_PATH, make_schema, sdl


def test_the_committed_schema_is_current() -> None:
    assert SDL_PATH.read_text() == sdl()


def test_every_field_is_described() -> None:
    schema = make_schema()._schema
    missing = [
        f"{name}.{field}"
        for name, kind in schema.type_map.items()
        if not name.startswith("__")
        for field, value in getattr(kind, "fields", {}).items()
        if not value.description
    ]
    assert missing == []


def test_the_points_of_a_report_are_weighed() -> None:
    point = "points { start cost requests }"
    report = f"usage {{ series {{ totals {{ cost }} {point} }} }}"
    assert measure(parse("{ " + point + " }")).points == 1 + 50 * 3
    assert measure(parse("{ " + report + " }")).points == 100 + 1 + 10 * (2 + 151)
    many = " ".join(f"a{number}: {report}" for number in range(14))
    assert refusal(measure(parse("{ " + many + " }"))) is not None


def test_a_short_list_is_no_page() -> None:
    assert measure(parse("{ budgets { id } }")).points == 1 + 4
    assert measure(parse("{ budgets { nodes { id } } }")).points == 1 + 50 * 2
