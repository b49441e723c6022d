"""How much a document asks for, before anything else looks at it.

Each node of a document is visited once: what a fragment weighs is remembered, so that a document
whose fragments unfold exponentially costs no more time than its text is long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
)

from controlplane.api.connections import FIRST_DEFAULT, FIRST_MAX

# The introspection query of graphql-core is 14 deep; the deepest useful one here about 8.
DEPTH_MAX = 20
ALIASES_MAX = 100
# A page of 100 keys with owner, user and team is 801 points.
POINTS_MAX = 20_000
# Depth of recursion over the text itself is bounded by this many tokens.
TOKENS_MAX = 5_000

# Fields that return many objects, and the argument that says how many.
_PAGED: Mapping[str, str] = MappingProxyType(
    {
        "teams": "first",
        "members": "first",
        "keys": "first",
        "budgets": "first",
        "breakers": "first",
        "breakerEvents": "first",
        "calibrations": "first",
        "thresholdCrossings": "first",
        "rateLimits": "first",
        "concurrencyLimits": "first",
        "installationLimits": "first",
        "pools": "first",
        "rules": "first",
        "costCenters": "first",
        "accessTokens": "first",
        "requests": "first",
        "plans": "first",
        "exchangeRates": "first",
        "entries": "first",
        "nodes": "ids",
    }
)
# Fields that are also lists of a few where one scope is asked for its own: a budget for each
# period, a breaker for each level, the pools of a key. A connection shows its objects by these
# fields alone.
_SHORT: Mapping[str, int] = MappingProxyType({"budgets": 3, "breakers": 3, "pools": 3})
_OF_CONNECTIONS = frozenset({"nodes", "edges", "pageInfo"})
# Fields that cost the database more than a look-up.
_WEIGHTS: Mapping[str, int] = MappingProxyType({"usage": 300, "spend": 10})
# Lists without `first`, and how many objects they are taken to have: a report may have 10,000
# points, but an everyday one, ten teams by day over a month and a half, has 500.
# The lists of the schema about itself: nothing of the data is read, but 95 times all fields of all
# types and theirs kept the process busy for two seconds.
_REPEATED: Mapping[str, int] = MappingProxyType(
    {"series": 10, "points": 50, "types": 10, "fields": 5, "inputFields": 3, "possibleTypes": 3}
)

Variables = Mapping[str, Any]
NO_VARIABLES: Variables = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Size:
    """How deep and how much: points are fields, times the size of the pages they are in."""

    depth: int = 0
    aliases: int = 0
    points: int = 0

    def beside(self, other: Size) -> Size:
        """Add what is selected next to it."""
        return Size(
            max(self.depth, other.depth),
            min(self.aliases + other.aliases, ALIASES_MAX + 1),
            min(self.points + other.points, POINTS_MAX + 1),
        )

    def or_larger(self, other: Size) -> Size:
        """Take the larger of each figure."""
        return Size(
            max(self.depth, other.depth),
            max(self.aliases, other.aliases),
            max(self.points, other.points),
        )


def refusal(size: Size) -> str | None:
    """Say why a document asks for too much; None when it does not."""
    if size.depth > DEPTH_MAX:
        return f"The query is deeper than {DEPTH_MAX}."
    if size.aliases > ALIASES_MAX:
        return f"The query has more than {ALIASES_MAX} aliases."
    if size.points > POINTS_MAX:
        return f"The query asks for more than {POINTS_MAX} points; ask for smaller pages."
    return None


def measure(
    document: DocumentNode,
    operation_name: str | None = None,
    variables: Variables = NO_VARIABLES,
    *,
    unknown: int = FIRST_MAX,
) -> Size:
    """Measure an operation of a document; the largest of each figure when none is named.

    A page whose size is a variable that is not given counts as `unknown`.
    """
    scale = Scale(fragments_of(document), variables, unknown)
    return weigh_operations(document, scale, operation_name)


def fragments_of(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    """List the fragments of a document by name."""
    return {
        each.name.value: each
        for each in document.definitions
        if isinstance(each, FragmentDefinitionNode)
    }


def weigh_operations(document: DocumentNode, scale: Scale, operation_name: str | None) -> Size:
    """Weigh the named operation, or all; the largest of each figure counts."""
    size = Size()
    for each in document.definitions:
        if isinstance(each, OperationDefinitionNode) and _is_named(each, operation_name):
            size = size.or_larger(scale.weigh(each.selection_set))
    return size


class Scale:
    """Weighs selections and remembers what each fragment weighs.

    `visits` counts the nodes it has looked at, `size_variables` are those that size a page.
    """

    def __init__(
        self,
        fragments: Mapping[str, FragmentDefinitionNode],
        variables: Variables = NO_VARIABLES,
        unknown: int = FIRST_MAX,
    ) -> None:
        self._fragments = fragments
        self._variables = variables
        self._unknown = unknown
        self.size_variables: set[str] = set()
        self._known: dict[str, Size] = {}
        self.visits = 0

    @property
    def reached(self) -> frozenset[str]:
        """The names of the fragments that were weighed."""
        return frozenset(self._known)

    def weigh(self, selections: SelectionSetNode | None) -> Size:
        """Weigh a selection set."""
        size = Size()
        if selections is None:
            return size
        for each in selections.selections:
            size = size.beside(self._selection(each))
        return size

    def _selection(self, node: SelectionNode) -> Size:
        self.visits += 1
        if isinstance(node, FieldNode):
            return self._field(node)
        if isinstance(node, FragmentSpreadNode):
            return self._fragment(node.name.value)
        return self.weigh(getattr(node, "selection_set", None))

    def _field(self, node: FieldNode) -> Size:
        inner = self.weigh(node.selection_set)
        name = node.name.value
        times = self._page_size(node, _PAGED[name]) if name in _PAGED else _REPEATED.get(name, 1)
        aliases = inner.aliases + (node.alias is not None)
        points = _WEIGHTS.get(name, 1) + times * inner.points
        return Size(inner.depth + 1, aliases, min(points, POINTS_MAX + 1))

    def _fragment(self, name: str) -> Size:
        known = self._known.get(name)
        if known is not None:
            return known
        # A fragment that contains itself weighs nothing here; validation refuses it.
        self._known[name] = Size()
        fragment = self._fragments.get(name)
        if fragment is not None:
            self._known[name] = self.weigh(fragment.selection_set)
        return self._known[name]

    def _page_size(self, node: FieldNode, argument_name: str) -> int:
        for argument in node.arguments or ():
            if argument.name.value == argument_name:
                return self._size_of(argument.value)
        if node.name.value in _SHORT and not _may_be_connection(node.selection_set):
            return _SHORT[node.name.value]
        # `nodes` of a connection shows its edges again and has no argument of its own.
        return FIRST_DEFAULT if argument_name == "first" else 1

    def _size_of(self, value: ValueNode) -> int:
        """Read a size within what is allowed; what cannot be read may be anything that is."""
        if isinstance(value, VariableNode):
            self.size_variables.add(value.name.value)
            return _bounded(self._variables.get(value.name.value), self._unknown)
        if isinstance(value, ListValueNode):
            return min(len(value.values), FIRST_MAX)
        # A number of more digits than the largest page is not worth reading.
        if isinstance(value, IntValueNode) and len(value.value) <= len(str(FIRST_MAX)):
            return _bounded(int(value.value), FIRST_MAX)
        return FIRST_MAX


def _may_be_connection(selections: SelectionSetNode | None) -> bool:
    return any(
        not isinstance(each, FieldNode) or each.name.value in _OF_CONNECTIONS
        for each in (() if selections is None else selections.selections)
    )


def _bounded(value: object, unknown: int) -> int:
    if isinstance(value, list):
        return min(len(value), FIRST_MAX)
    if isinstance(value, int):
        return max(1, min(value, FIRST_MAX))
    return unknown


def _is_named(operation: OperationDefinitionNode, name: str | None) -> bool:
    return name is None or (operation.name is not None and operation.name.value == name)
