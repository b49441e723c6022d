"""The committed schema is the schema."""

from __future__ import annotations

from collections.abc import Iterator

from graphql import GraphQLNamedType, parse, specified_scalar_types

from controlplane.api.limiter import measure, refusal
from controlplane.api.schema import SDL_PATH, make_schema, sdl


def test_the_committed_schema_is_current() -> None:
    assert SDL_PATH.read_text() == sdl()


def described(kind: GraphQLNamedType) -> Iterator[tuple[str, str | None]]:
    """List a type and everything in it, each with its description."""
    yield kind.name, kind.description
    for name, field in getattr(kind, "fields", {}).items():
        yield f"{kind.name}.{name}", field.description
        for argument, value in getattr(field, "args", {}).items():
            yield f"{kind.name}.{name}({argument}:)", value.description
    for name, value in getattr(kind, "values", {}).items():
        yield f"{kind.name}={name}", value.description


def test_everything_is_described() -> None:
    found = {
        place: text
        for name, kind in make_schema()._schema.type_map.items()
        if not name.startswith("__") and name not in specified_scalar_types
        for place, text in described(kind)
    }
    # One of each sort, so that none of them is passed over.
    sorts = {
        "Team",
        "Money",
        "UserError.code",
        "TeamCreateInput.name",
        "Team.keys(first:)",
        "Mutation.teamCreate(input:)",
        "Subscription.liveSpend(scopes:)",
        "Role=ADMIN",
    }
    assert sorts <= found.keys()
    assert [place for place, text in found.items() if not text] == []


def test_the_points_of_a_report_are_weighed() -> None:
    point = "points { start cost requests }"
    report = f"usage {{ series {{ totals {{ cost }} {point} }} }}"
    assert measure(parse("{ " + point + " }")).points == 1 + 50 * 3
    assert measure(parse("{ " + report + " }")).points == 300 + 1 + 10 * (2 + 151)
    many = " ".join(f"a{number}: {report}" for number in range(14))
    assert refusal(measure(parse("{ " + many + " }"))) is not None


def test_the_own_budgets_of_a_scope_are_few() -> None:
    assert measure(parse("{ key { budgets { id limit } breakers { id } } }")).points == 12
    # Whatever might be a connection counts as a page of one.
    for selection in ("nodes { id }", "edges { cursor }", "...f", "... { nodes { id } }"):
        text = f"{{ budgets {{ {selection} }} }} fragment f on C {{ nodes {{ id }} }}"
        assert measure(parse(text)).points >= 51
