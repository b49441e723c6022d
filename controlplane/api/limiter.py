"""How much a document asks for, before anything else looks at it.

Each fragment is measured once, so that a document whose fragments unfold exponentially costs no
more time than its text is long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValueNode,
)

from controlplane.api.connections import FIRST_DEFAULT, FIRST_MAX

# The introspection query of graphql-core is 14 deep; the deepest useful one here about 8.
DEPTH_MAX = 20
ALIASES_MAX = 100
# A page of 100 keys with owner, user and team is 801 points.
POINTS_MAX = 20_000
# Depth of recursion over the text itself is bounded by this many tokens.
TOKENS_MAX = 5_000

# Fields that return a page; `first` says how large.
_PAGED = frozenset(
    {"teams", "members", "keys", "budgets", "breakers", "rateLimits", "modelRules", "requests"}
)
# Lists without `first`, and how many objects they are taken to have: a report may have 10,000
# points, but an everyday one, ten teams by day over a month and a half, has 500.
_REPEATED = {"series": 10, "points": 50}


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


def refusal(document: DocumentNode) -> str | None:
    """Say why a document asks for too much; None when it does not."""
    size = measure(document)
    if size.depth > DEPTH_MAX:
        return f"The query is deeper than {DEPTH_MAX}."
    if size.aliases > ALIASES_MAX:
        return f"The query has more than {ALIASES_MAX} aliases."
    if size.points > POINTS_MAX:
        return f"The query asks for more than {POINTS_MAX} points; ask for smaller pages."
    return None


def measure(document: DocumentNode) -> Size:
    """Measure the largest operation of a document."""
    fragments = {
        each.name.value: each
        for each in document.definitions
        if isinstance(each, FragmentDefinitionNode)
    }
    scale = _Scale(fragments)
    size = Size()
    for each in document.definitions:
        if isinstance(each, OperationDefinitionNode):
            found = scale.weigh(each.selection_set)
            size = Size(
                max(size.depth, found.depth),
                max(size.aliases, found.aliases),
                max(size.points, found.points),
            )
    return size


class _Scale:
    """Weighs selections and remembers what each fragment weighs."""

    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._known: dict[str, Size] = {}

    def weigh(self, selections: SelectionSetNode | None) -> Size:
        """Weigh a selection set."""
        size = Size()
        if selections is None:
            return size
        for each in selections.selections:
            if isinstance(each, FieldNode):
                size = size.beside(self._field(each))
            elif isinstance(each, FragmentSpreadNode):
                size = size.beside(self._fragment(each.name.value))
            else:
                size = size.beside(self.weigh(getattr(each, "selection_set", None)))
        return size

    def _field(self, node: FieldNode) -> Size:
        inner = self.weigh(node.selection_set)
        name = node.name.value
        times = _page_size(node) if name in _PAGED else _REPEATED.get(name, 1)
        aliases = inner.aliases + (node.alias is not None)
        return Size(inner.depth + 1, aliases, min(1 + times * inner.points, POINTS_MAX + 1))

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


def _page_size(node: FieldNode) -> int:
    for argument in node.arguments or ():
        if argument.name.value == "first":
            return _literal_page_size(argument.value)
    return FIRST_DEFAULT


def _literal_page_size(value: ValueNode) -> int:
    """Read a literal within what is allowed; a variable may be anything that is."""
    if not isinstance(value, IntValueNode) or len(value.value) > len(str(FIRST_MAX)):
        return FIRST_MAX
    return max(1, min(int(value.value), FIRST_MAX))
