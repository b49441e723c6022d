"""How often a document asks for the same field of the same object.

Validation compares all mentions of a field that end up in one place pair by pair, also through
fragments: 14 kB of a field repeated 700 times took it a second, in which nothing else is served.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
)

# Some components of a page, each with a fragment of its own on the same object, stay below.
MENTIONS_MAX = 50

Fragments = Mapping[str, FragmentDefinitionNode]


def mentions_of(document: DocumentNode, fragments: Fragments) -> int:
    """Count the mentions of the field that is mentioned most in one place, up to one too many.

    Takes as many steps as the document has fields with its fragments unfolded: bound those first.
    Raises `RecursionError` for a fragment that contains itself.
    """
    return max(
        (
            _most([each.selection_set], fragments)
            for each in document.definitions
            if isinstance(each, OperationDefinitionNode)
        ),
        default=0,
    )


def _most(selections: Iterable[SelectionSetNode], fragments: Fragments) -> int:
    merged: dict[str, list[FieldNode]] = {}
    seen: set[str] = set()
    for each in selections:
        for field in _fields(each.selections, fragments, seen):
            name = (field.alias or field.name).value
            merged.setdefault(name, []).append(field)
    most = max((len(fields) for fields in merged.values()), default=0)
    for fields in merged.values():
        if most > MENTIONS_MAX:
            break
        inner = [field.selection_set for field in fields if field.selection_set is not None]
        most = max(most, _most(inner, fragments))
    return most


def _fields(
    selections: Iterable[SelectionNode], fragments: Fragments, seen: set[str]
) -> Iterator[FieldNode]:
    """Give the fields of a selection; a fragment counts once in one place."""
    for each in selections:
        if isinstance(each, FieldNode):
            yield each
        elif isinstance(each, InlineFragmentNode):
            yield from _fields(each.selection_set.selections, fragments, seen)
        elif isinstance(each, FragmentSpreadNode) and each.name.value not in seen:
            seen.add(each.name.value)
            fragment = fragments.get(each.name.value)
            if fragment is not None:
                yield from _fields(fragment.selection_set.selections, fragments, seen)
