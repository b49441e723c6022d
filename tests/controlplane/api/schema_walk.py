"""Documents that together ask for every field of the schema.

A type with a global id is reached by `node(id:)`, every other along the shortest way from the
root. A field that needs an argument for which no example is known is a failure of the walk: whoever
adds such a field must say how it is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphql import (
    GraphQLField,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    get_named_type,
    is_interface_type,
    is_leaf_type,
    is_object_type,
    is_required_argument,
)

# Reached from a payload or a subscription, which are walked by tables of their own.
_ROOTS = frozenset({"Mutation", "Subscription"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A document and the fields it asks for, each as `Type.field`."""

    type_name: str
    text: str
    fields: frozenset[str]

    @property
    def is_by_id(self) -> bool:
        """Whether the way to it begins at an id or a slug, not at who asks."""
        return self.text.startswith(("{ node(", "{ ... on Query { organization("))


class Walk:
    """All documents; `examples` maps `Type.field` to the text of its arguments, `ids` types to ids."""

    def __init__(
        self, schema: GraphQLSchema, examples: Mapping[str, str], ids: Mapping[str, str]
    ) -> None:
        self._schema = schema
        self._examples = examples
        self._ids = ids
        self._ways = self._find_ways()

    def documents(self) -> Iterator[Asked]:
        """Give one document for each object type that a query reaches."""
        for name, (head, tail) in self._ways.items():
            kind = self._schema.type_map[name]
            assert isinstance(kind, GraphQLObjectType)
            fields = frozenset(f"{name}.{field}" for field in kind.fields)
            yield Asked(name, f"{{ {head} {{ __typename {self._all_of(kind)} }} {tail} }}", fields)

    def unreached(self) -> set[str]:
        """Name the object types that no query reaches."""
        all_types = {
            name
            for name, kind in self._schema.type_map.items()
            if is_object_type(kind) and not name.startswith("__")
        }
        return all_types - set(self._ways) - _ROOTS

    def _find_ways(self) -> dict[str, tuple[str, str]]:
        """Find how each type is reached: the text before and after its selection."""
        ways: dict[str, tuple[str, str]] = {"Query": ("... on Query", "")}
        for name, text in self._ids.items():
            ways[name] = (f'node(id: "{text}") {{ ... on {name}', "}")
        waiting = deque(ways)
        while waiting:
            name = waiting.popleft()
            kind = self._schema.type_map[name]
            assert isinstance(kind, GraphQLObjectType)
            for field_name, field in kind.fields.items():
                found = get_named_type(field.type)
                if is_object_type(found) and found.name not in ways:
                    head, tail = ways[name]
                    call = self._call(kind, field_name, field)
                    ways[found.name] = (f"{head} {{ {call}", f"}} {tail}")
                    waiting.append(found.name)
        return ways

    def _all_of(self, kind: GraphQLObjectType) -> str:
        parts = []
        for name, field in kind.fields.items():
            inner = get_named_type(field.type)
            selection = "" if is_leaf_type(inner) else f" {{ {self._leaves_of(inner)} }}"
            parts.append(f"{self._call(kind, name, field)}{selection}")
        return " ".join(parts)

    def _leaves_of(self, kind: GraphQLNamedType) -> str:
        """Ask for what needs no further selection, and for the nodes of a connection."""
        if is_interface_type(kind):
            return "__typename " + " ".join(
                name
                for name, field in kind.fields.items()
                if is_leaf_type(get_named_type(field.type))
            )
        assert isinstance(kind, GraphQLObjectType)
        parts = ["__typename"]
        for name, field in kind.fields.items():
            inner = get_named_type(field.type)
            needs = any(is_required_argument(each) for each in field.args.values())
            if is_leaf_type(inner) and not needs:
                parts.append(name)
            elif name == "nodes" and kind.name.endswith("Connection"):
                parts.append(f"nodes {{ {self._leaves_of(inner)} }}")
        return " ".join(parts)

    def _call(self, kind: GraphQLObjectType, name: str, field: GraphQLField) -> str:
        example = self._examples.get(f"{kind.name}.{name}")
        if example is not None:
            return f"{name}({example})"
        needed = [each for each, value in field.args.items() if is_required_argument(value)]
        assert not needed, f"say in EXAMPLES how {kind.name}.{name} is asked for: it needs {needed}"
        return name
