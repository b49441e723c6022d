"""Documents are weighed in one look at each of their nodes, and refused at the stated limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    NoUnusedFragmentsRule,
    OperationDefinitionNode,
    SelectionSetNode,
    UniqueFragmentNamesRule,
    Visitor,
    get_introspection_query,
    parse,
    validate,
    visit,
)
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api import documents as preparing
from controlplane.api.connections import FIRST_DEFAULT, FIRST_MAX
from controlplane.api.documents import (
    DEFINITIONS_MAX,
    DOCUMENT_LENGTH_MAX,
    points_of,
    prepare,
)
from controlplane.api.limiter import (
    ALIASES_MAX,
    DEPTH_MAX,
    POINTS_MAX,
    TOKENS_MAX,
    Scale,
    Size,
    fragments_of,
    measure,
    refusal,
    weigh_operations,
)
from controlplane.api.merging import MENTIONS_MAX, mentions_of
from controlplane.api.schema import make_schema

SCHEMA = make_schema()._schema
NAMES = ("a", "id", "teams", "keys", "usage", "spend", "nodes")
PAGED = {"teams", "keys"}
WEIGHTS = {"usage": 300, "spend": 10}


class Counter(Visitor):
    """Counts selections the way graphql-core itself walks a document."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def enter_field(self, *_args: Any) -> None:
        self.count += 1

    def enter_fragment_spread(self, *_args: Any) -> None:
        self.count += 1

    def enter_inline_fragment(self, *_args: Any) -> None:
        self.count += 1


def reached(document: DocumentNode) -> DocumentNode:
    """Leave out the fragments that no operation reaches: nobody looks at those."""
    fragments = fragments_of(document)
    operations = [
        each for each in document.definitions if isinstance(each, OperationDefinitionNode)
    ]
    found: dict[str, FragmentDefinitionNode] = {}
    waiting: list[Any] = list(operations)
    while waiting:
        spreads: list[str] = []

        class Spreads(Visitor):
            def enter_fragment_spread(self, node: FragmentSpreadNode, *_args: Any) -> None:
                spreads.append(node.name.value)  # noqa: B023 - used before the next turn

        visit(waiting.pop(), Spreads())
        for name in spreads:
            if name not in found and name in fragments:
                found[name] = fragments[name]
                waiting.append(fragments[name])
    return DocumentNode(definitions=(*operations, *found.values()))


@st.composite
def selections(draw: st.DrawFn, spreads: list[str], depth: int = 3) -> str:
    """Write a selection set that may spread these fragments, each any number of times."""
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["field", "parent", "inline", "spread"]))
        if kind == "spread" and spreads:
            parts.append(f"...{draw(st.sampled_from(spreads))}")
        elif kind == "inline" and depth:
            parts.append(f"... on Query {draw(selections(spreads, depth - 1))}")
        else:
            parts.append(draw(field(spreads, depth if kind == "parent" else 0)))
    return "{ " + " ".join(parts) + " }"


@st.composite
def field(draw: st.DrawFn, spreads: list[str], depth: int) -> str:
    name = draw(st.sampled_from(NAMES))
    alias = draw(st.sampled_from(["", "", "x: "]))
    argument = ""
    if name in PAGED:
        argument = draw(
            st.sampled_from(["", "(first: 3)", "(first: $n)", "(first: -2)", "(first: 9999999)"])
        )
    if name == "nodes":
        argument = draw(st.sampled_from(["", '(ids: ["a", "b"])', "(ids: $ids)"]))
    inner = f" {draw(selections(spreads, depth - 1))}" if depth else ""
    return alias + name + argument + inner


@st.composite
def documents(draw: st.DrawFn, *, recursive: bool) -> str:
    """Write operations over fragments that spread later ones; any ones when recursive."""
    names = [f"f{number}" for number in range(draw(st.integers(0, 4)))]
    texts = [f"query q{number} {draw(selections(names))}" for number in range(2)]
    for number, name in enumerate(names):
        inner = draw(selections(names if recursive else names[number + 1 :], 2))
        texts.append(f"fragment {name} on Query {inner}")
    return " ".join(texts)


VARIABLES = st.fixed_dictionaries(
    {},
    optional={
        "n": st.one_of(st.none(), st.integers(-(2**70), 2**70), st.text(max_size=2)),
        "ids": st.lists(st.text(max_size=1), max_size=120),
    },
)


class Naive:
    """Unfolds every fragment wherever it is spread, and caps nothing on the way."""

    def __init__(self, document: DocumentNode, variables: Mapping[str, Any]) -> None:
        self.fragments = fragments_of(document)
        self.variables = variables

    def weigh(self, selections: SelectionSetNode | None) -> Size:
        depth = aliases = points = 0
        for each in () if selections is None else selections.selections:
            if isinstance(each, FieldNode):
                size = self.field(each)
            elif isinstance(each, FragmentSpreadNode):
                size = self.weigh(self.fragments[each.name.value].selection_set)
            else:
                size = self.weigh(each.selection_set)  # type: ignore[attr-defined]
            depth = max(depth, size.depth)
            aliases += size.aliases
            points += size.points
        return Size(depth, aliases, points)

    def field(self, node: FieldNode) -> Size:
        inner = self.weigh(node.selection_set)
        points = WEIGHTS.get(node.name.value, 1) + self.times(node) * inner.points
        return Size(inner.depth + 1, inner.aliases + (node.alias is not None), points)

    def times(self, node: FieldNode) -> int:
        name = node.name.value
        if name in PAGED:
            return self.value(node, FIRST_DEFAULT)
        return self.value(node, 1) if name == "nodes" else 1

    def value(self, node: FieldNode, missing: int) -> int:
        if not node.arguments:
            return missing
        value: Any = node.arguments[0].value
        if value.kind == "variable":
            return self.given(self.variables.get(value.name.value))
        if value.kind == "list_value":
            return min(len(value.values), 100)
        return max(1, min(int(value.value), 100))

    @staticmethod
    def given(value: Any) -> int:
        if isinstance(value, list):
            return min(len(value), 100)
        return max(1, min(value, 100)) if isinstance(value, int) else 100


@given(documents(recursive=True))
def test_each_node_is_looked_at_once_however_often_it_is_spread(text: str) -> None:
    document = parse(text)
    scale = Scale(fragments_of(document))
    weigh_operations(document, scale, None)
    counter = Counter()
    visit(reached(document), counter)
    assert scale.visits == counter.count


@given(documents(recursive=False), VARIABLES, st.sampled_from([None, "q0", "q1"]))
def test_it_weighs_what_unfolding_every_fragment_would(
    text: str, variables: dict[str, Any], name: str | None
) -> None:
    document = parse(text)
    naive = Naive(document, variables)
    expected = Size()
    for each in document.definitions:
        if isinstance(each, OperationDefinitionNode) and name in {None, each.name.value}:
            expected = expected.or_larger(naive.weigh(each.selection_set))
    found = measure(document, name, variables)
    assert found == Size(
        expected.depth,
        min(expected.aliases, ALIASES_MAX + 1),
        min(expected.points, POINTS_MAX + 1),
    )


def bomb(levels: int) -> str:
    spreads = " ".join(
        f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }}" for n in range(levels)
    )
    return (
        f"{{ ...f0 }} {spreads} fragment f{levels} on Query {{ a: viewer {{ user {{ email }} }} }}"
    )


def test_a_fragment_bomb_is_measured_in_the_time_its_text_takes() -> None:
    document = parse(bomb(200))
    scale = Scale(fragments_of(document))
    size = weigh_operations(document, scale, None)
    assert size == Size(depth=3, aliases=ALIASES_MAX + 1, points=POINTS_MAX + 1)
    assert scale.visits == 1 + 2 * 200 + 3
    [error] = prepare(SCHEMA, bomb(200)).errors
    assert error.extensions == {"code": "QUERY_TOO_EXPENSIVE"}


def test_a_fragment_that_contains_itself_is_refused() -> None:
    text = "{ ...a } fragment a on Query { viewer { user { email } } ...b } fragment b on Query { ...a }"
    assert prepare(SCHEMA, text).errors
    endless = "{ viewer { ...v } } fragment v on Viewer { memberships { user { email } } ...v }"
    assert prepare(SCHEMA, endless).errors


def nested(depth: int) -> str:
    return "{a" * depth + "}" * depth


def aliased(count: int) -> str:
    return "{" + " ".join(f"a{n}: b" for n in range(count)) + "}"


def wide(points: int) -> str:
    # One of these costs 1 + 100 · 1.
    pages, rest = divmod(points, 101)
    return "{" + " keys(first: 100) { id }" * pages + " id" * rest + "}"


@pytest.mark.parametrize(
    ("write", "maximum", "says"),
    [
        (nested, DEPTH_MAX, "The query is deeper than 20."),
        (aliased, ALIASES_MAX, "The query has more than 100 aliases."),
        (
            wide,
            POINTS_MAX,
            "The query asks for more than 20000 points; ask for smaller pages.",
        ),
    ],
)
def test_limits_hold_at_their_edge(write: Any, maximum: int, says: str) -> None:
    assert refusal(measure(parse(write(maximum)))) is None
    assert refusal(measure(parse(write(maximum + 1)))) == says


def test_a_fragment_counts_wherever_it_is_spread() -> None:
    fragment = "fragment f on Query { x: keys(first: 10) { id } }"
    assert measure(parse(f"{{ ...f }} {fragment}")) == Size(2, 1, 11)
    assert measure(parse(f"{{ teams(first: 2) {{ ...f ...f }} ...f }} {fragment}")) == Size(
        3, 3, 56
    )


@pytest.mark.parametrize(
    ("argument", "variables", "size"),
    [
        ("", {}, FIRST_DEFAULT),
        ("(first: 1)", {}, 1),
        ("(first: 0)", {}, 1),
        ("(first: -5)", {}, 1),
        ("(first: 100)", {}, 100),
        ("(first: 101)", {}, FIRST_MAX),
        ("(first: 99999999999999999999)", {}, FIRST_MAX),
        ('(first: "x")', {}, FIRST_MAX),
        ("(first: null)", {}, FIRST_MAX),
        ("(first: $n)", {}, FIRST_MAX),
        ("(first: $n)", {"n": 7}, 7),
        ("(first: $n)", {"n": -(2**70)}, 1),
        ("(first: $n)", {"n": 2**70}, FIRST_MAX),
        ("(first: $n)", {"n": 1e300}, FIRST_MAX),
        ("(first: $n)", {"n": None}, FIRST_MAX),
        ("(first: $n)", {"n": [1, 2]}, 2),
    ],
)
def test_a_page_costs_its_size(argument: str, variables: dict[str, Any], size: int) -> None:
    assert measure(parse(f"{{ keys{argument} {{ id }} }}"), None, variables).points == 1 + size


@pytest.mark.parametrize(
    ("ids", "variables", "size"),
    [
        ('["a", "b", "c"]', {}, 3),
        ("[]", {}, 0),
        ("$ids", {"ids": ["a"] * 9}, 9),
        ("$ids", {"ids": ["a"] * 1000}, FIRST_MAX),
        ("$ids", {}, FIRST_MAX),
    ],
)
def test_nodes_cost_as_many_as_there_are_ids(ids: str, variables: Any, size: int) -> None:
    assert measure(parse(f"{{ nodes(ids: {ids}) {{ id }} }}"), None, variables).points == 1 + size


def test_the_nodes_of_a_page_are_not_multiplied_twice() -> None:
    assert measure(parse("{ o { keys(first: 10) { nodes { id name } } } }")).points == 32


KEYS = 'query($n: Int!) { organization(slug: "acme") { keys(first: $n) { nodes { id } } } }'


def test_an_operation_costs_by_the_variables_it_comes_with() -> None:
    costs = [points_of(SCHEMA, KEYS, None, {"n": n}) for n in (1, 50, 100, 100, 1)]
    assert costs == [4, 102, 202, 202, 4]


def test_what_is_remembered_of_sizes_is_bounded() -> None:
    for n in range(-500, 2_000):
        points_of(SCHEMA, KEYS, None, {"n": n})
    assert len(prepare(SCHEMA, KEYS).sizes) <= 64


def test_a_document_has_a_greatest_length_and_number_of_tokens() -> None:
    def padded(length: int) -> str:
        return "{ viewer { user { email } } } #".ljust(length, "x")

    assert prepare(SCHEMA, padded(DOCUMENT_LENGTH_MAX)).errors == ()
    [error] = prepare(SCHEMA, padded(DOCUMENT_LENGTH_MAX + 1)).errors
    assert error.extensions == {"code": "QUERY_TOO_EXPENSIVE"}
    assert prepare(SCHEMA, "{" + " a" * (TOKENS_MAX + 1) + "}").document is None


MENTIONS = [
    "{" + " viewer { user { email } }" * 51 + "}",
    "{" + " ... on Query { viewer { user { email } } }" * 51 + "}",
    "{ viewer {" + " user { email }" * 51 + "} }",
    "{"
    + "".join(f" ...f{n}" for n in range(51))
    + "}"
    + "".join(f" fragment f{n} on Query {{ viewer {{ user {{ email }} }} }}" for n in range(51)),
    "{ viewer { user { email } }" + " viewer { user { email } user { email } }" * 25 + "}",
]


@pytest.mark.parametrize("text", MENTIONS)
def test_a_field_is_mentioned_only_so_often_in_one_place(text: str) -> None:
    """Else validation compares all mentions pair by pair: 700 took it a second."""
    document = parse(text)
    assert mentions_of(document, fragments_of(document)) == MENTIONS_MAX + 1
    [error] = prepare(SCHEMA, text).errors
    assert error.extensions == {"code": "QUERY_TOO_EXPENSIVE"}


def test_as_many_mentions_as_there_may_be() -> None:
    text = "{" + " viewer { user { email } }" * MENTIONS_MAX + "}"
    assert prepare(SCHEMA, text).errors == ()
    shared = "{" + " ...f" * 200 + "} fragment f on Query { viewer { user { email } } }"
    document = parse(shared)
    assert mentions_of(document, fragments_of(document)) == 1


MANY = "rateLimit { cost } " * 1_200
USED = "{ ...F } fragment F on Query { rateLimit { cost } }"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"{{ rateLimit {{ cost }} }} fragment F on Query {{ {MANY} }}",
            "Fragment 'F' is never used.",
        ),
        (
            f"fragment F on Query {{ {MANY} }} {USED}",
            "There can be only one fragment named 'F'.",
        ),
    ],
)
def test_what_no_operation_reaches_is_not_compared(text: str, said: str, monkeypatch) -> None:
    """Mentions are counted from operations: such a fragment took validation 3 seconds."""
    rules: list[object] = []

    def validate_with(schema, document, given, **options):
        rules.extend(given)
        return validate(schema, document, given, **options)

    monkeypatch.setattr(preparing, "validate", validate_with)
    assert [each.message for each in prepare(SCHEMA, text).errors] == [said]
    assert rules == [UniqueFragmentNamesRule, NoUnusedFragmentsRule]


def test_a_document_has_only_so_many_definitions() -> None:
    """Fragments are compared in pairs, and every rule of variables walks each operation's."""

    def document(count: int) -> str:
        spreads = " ".join(f"...f{number}" for number in range(count - 2))
        fragments = " ".join(
            f"fragment f{number} on Query {{ ...g }}" for number in range(count - 2)
        )
        return f"{{ {spreads} }} {fragments} fragment g on Query {{ __typename }}"

    assert prepare(SCHEMA, document(DEFINITIONS_MAX)).errors == ()
    [error] = prepare(SCHEMA, document(DEFINITIONS_MAX + 1)).errors
    assert error.extensions == {"code": "QUERY_TOO_EXPENSIVE"}


def test_what_the_schema_says_of_itself_costs_by_its_size() -> None:
    """Two seconds of work were 760 points."""
    fields = "fields { type { fields { name type { name } } } }"
    aliases = " ".join(f"a{n}: __schema {{ types {{ {fields} }} }}" for n in range(95))
    [error] = prepare(SCHEMA, f"{{ {aliases} }}").errors
    assert error.extensions == {"code": "QUERY_TOO_EXPENSIVE"}
    everything = get_introspection_query(input_value_deprecation=True)
    assert 2_000 < points_of(SCHEMA, everything, None, {}) < POINTS_MAX // 2
