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


def test_the_own_budgets_of_a_scope_are_few() -> None:
    assert measure(parse("{ key { budgets { id limit } breakers { id } } }")).points == 12
    # Whatever might be a connection counts as a page of one.
    for selection in ("nodes { id }", "edges { cursor }", "...f", "... { nodes { id } }"):
        text = f"{{ budgets {{ {selection} }} }} fragment f on C {{ nodes {{ id }} }}"
        assert measure(parse(text)).points >= 51
