"""The committed schema is the schema, and documents are measured before anything else."""

from __future__ import annotations

from graphql import parse

from controlplane.api.documents import prepare
from controlplane.api.limiter import ALIASES_MAX, DEPTH_MAX, POINTS_MAX, measure, refusal
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


def test_a_fragment_bomb_is_measured_in_the_time_its_text_takes() -> None:
    bomb = "{ ...f0 } " + " ".join(
        f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }}" for n in range(200)
    )
    text = bomb + " fragment f200 on Query { a: viewer { user { email } } }"
    size = measure(parse(text))
    assert (size.aliases, size.points) == (ALIASES_MAX + 1, POINTS_MAX + 1)
    [error] = prepare(make_schema()._schema, text).errors
    assert error.extensions == {"code": "QUERY_TOO_EXPENSIVE"}


def test_limits_hold_at_their_edge() -> None:
    def nested(depth: int) -> str:
        return "{a" * depth + "}" * depth

    def aliased(count: int) -> str:
        return "{" + " ".join(f"a{n}: b" for n in range(count)) + "}"

    assert refusal(measure(parse(nested(DEPTH_MAX)))) is None
    assert refusal(measure(parse(nested(DEPTH_MAX + 1)))) is not None
    assert refusal(measure(parse(aliased(ALIASES_MAX)))) is None
    assert refusal(measure(parse(aliased(ALIASES_MAX + 1)))) is not None


def test_a_page_multiplies_what_is_in_it() -> None:
    assert measure(parse("{ o { keys(first: 10) { nodes { id name } } } }")).points == 32
    assert measure(parse("query($n: Int) { keys(first: $n) { id } }")).points == 101
    assert measure(parse("{ keys(first: 99999999999) { id } }")).points == 101
    assert measure(parse("{ keys { id } }")).points == 51


def test_the_own_budgets_of_a_scope_are_few() -> None:
    assert measure(parse("{ key { budgets { id limit } breakers { id } } }")).points == 12
    # Whatever might be a connection counts as a page of one.
    for selection in ("nodes { id }", "edges { cursor }", "...f", "... { nodes { id } }"):
        text = f"{{ budgets {{ {selection} }} }} fragment f on C {{ nodes {{ id }} }}"
        assert measure(parse(text)).points >= 51
