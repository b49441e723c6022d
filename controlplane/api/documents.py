"""Documents parsed, measured and validated once, and remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    InlineFragmentNode,
    NoUnusedFragmentsRule,
    OperationDefinitionNode,
    UniqueFragmentNamesRule,
    parse,
    specified_rules,
    validate,
)
from strawberry.extensions import SchemaExtension
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from controlplane.api.connections import FIRST_MAX
from controlplane.api.limiter import (
    NO_VARIABLES,
    TOKENS_MAX,
    Scale,
    Size,
    fragments_of,
    measure,
    refusal,
    weigh_operations,
)
from controlplane.api.merging import MENTIONS_MAX, mentions_of

DOCUMENTS_MAX = 512
# A parsed document takes up to 200 bytes for each of its characters.
REMEMBERED_LENGTH_MAX = 500_000
# Some rules look at every operation with every fragment, and at fragments in pairs.
DEFINITIONS_MAX = 100
# What is remembered of a document is its text too: comments and strings are hardly any tokens.
DOCUMENT_LENGTH_MAX = 100_000
# Of one document, by operation and page sizes.
SIZES_MAX = 64
ERRORS_MAX = 10

# The name of an operation, and the sizes of its pages by the variables that say them.
_SizeKey = tuple[str | None, tuple[tuple[str, int | None], ...]]

# One tuple for all documents: a rule class made for each would be a new key of every cache.
_RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)
# What was measured is what operations reach: a fragment that none does must not be looked into.
_REACH_RULES = (UniqueFragmentNamesRule, NoUnusedFragmentsRule)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that may be executed, or why not: a text that is no document has none.

    `size_variables` are the variables that say how large a page is, `sizes` what was measured.
    """

    document: DocumentNode | None
    errors: tuple[GraphQLError, ...]
    size_variables: frozenset[str] = frozenset()
    sizes: dict[_SizeKey, Size] = field(default_factory=dict)

    def operation(self, name: str | None) -> OperationDefinitionNode | None:
        """Find the operation of this name; None when it does not choose exactly one."""
        definitions = () if self.document is None else self.document.definitions
        found = [
            each
            for each in definitions
            if isinstance(each, OperationDefinitionNode)
            and (name is None or _name_of(each) == name)
        ]
        return found[0] if len(found) == 1 else None


class Memory:
    """The documents that were prepared last, as far as their texts are short together."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[GraphQLSchema, str], Prepared] = OrderedDict()
        self.length = 0

    def __len__(self) -> int:
        return len(self._known)

    def find(self, schema: GraphQLSchema, text: str) -> Prepared | None:
        """Find a document; None when it is not remembered."""
        found = self._known.get((schema, text))
        if found is not None:
            self._known.move_to_end((schema, text))
        return found

    def keep(self, schema: GraphQLSchema, text: str, prepared: Prepared) -> None:
        """Remember a document that is not, and forget those that were asked for long ago."""
        self._known[schema, text] = prepared
        self.length += len(text)
        while len(self._known) > DOCUMENTS_MAX or self.length > REMEMBERED_LENGTH_MAX:
            (_, forgotten), _ = self._known.popitem(last=False)
            self.length -= len(forgotten)


MEMORY = Memory()


def prepare(schema: GraphQLSchema, text: str) -> Prepared:
    """Parse, measure and validate a document, or remember what came of that."""
    prepared = MEMORY.find(schema, text)
    if prepared is None:
        prepared = _prepared(schema, text)
        # A text of any length may be refused for it: what is not parsed costs nothing to refuse.
        if len(text) <= DOCUMENT_LENGTH_MAX:
            MEMORY.keep(schema, text, prepared)
    return prepared


def is_remembered(schema: GraphQLSchema, text: str) -> bool:
    """Tell whether preparing a document again costs nothing."""
    return MEMORY.find(schema, text) is not None


def _prepared(schema: GraphQLSchema, text: str) -> Prepared:
    if len(text) > DOCUMENT_LENGTH_MAX:
        reason = f"The document is longer than {DOCUMENT_LENGTH_MAX} characters; use variables."
        return Prepared(None, (_too_expensive(reason),))
    try:
        document = parse(text, max_tokens=TOKENS_MAX)
    except GraphQLSyntaxError as error:
        return Prepared(None, (error,))
    except RecursionError:
        return Prepared(None, (_too_expensive("The query is nested too deeply."),))
    return _checked(schema, document)


def points_of(
    schema: GraphQLSchema, text: str, operation_name: str | None, variables: Mapping[str, Any]
) -> int:
    """Count the points of an operation with these variables.

    Raises `GraphQLError` when they are too many.
    """
    prepared = prepare(schema, text)
    names = sorted(prepared.size_variables)
    values = tuple((name, _size_value(variables.get(name))) for name in names)
    size = _size(prepared, (operation_name, values))
    reason = refusal(size)
    if reason is not None:
        raise _too_expensive(reason)
    return size.points


def _size(prepared: Prepared, key: _SizeKey) -> Size:
    """Measure, or remember; what is remembered goes when its document does."""
    found = prepared.sizes.get(key)
    if found is not None or prepared.document is None:
        return found or Size()
    if len(prepared.sizes) >= SIZES_MAX:
        prepared.sizes.clear()
    size = prepared.sizes[key] = measure(prepared.document, key[0], dict(key[1]))
    return size


def _size_value(value: object) -> int | None:
    """Read a page size no further than pages go, so that there are few."""
    if isinstance(value, list):
        return min(len(value), FIRST_MAX)
    return max(0, min(value, FIRST_MAX)) if isinstance(value, int) else None


def _checked(schema: GraphQLSchema, document: DocumentNode) -> Prepared:
    """Measure first: some rules take long over what unfolds exponentially."""
    try:
        # What its variables will be is not known yet: it is refused only if it is always too much.
        fragments = fragments_of(document)
        scale = Scale(fragments, NO_VARIABLES, unknown=1)
        reason = refusal(weigh_operations(document, scale, None))
        reason = reason or _too_many_definitions(document)
        reason = reason or _too_many_mentions(document, fragments)
        if reason is not None:
            return Prepared(document, (_too_expensive(reason),))
        rules = _RULES if _is_all_reached(document, scale) else _REACH_RULES
        errors = validate(schema, document, rules, max_errors=ERRORS_MAX, hide_suggestions=True)
    except RecursionError:
        return Prepared(document, (_too_expensive("The query is nested too deeply."),))
    return Prepared(document, tuple(errors), frozenset(scale.size_variables))


def _is_all_reached(document: DocumentNode, scale: Scale) -> bool:
    """Tell whether each fragment is the only one of its name and was weighed with an operation."""
    defined = [
        each.name.value for each in document.definitions if isinstance(each, FragmentDefinitionNode)
    ]
    return len(set(defined)) == len(defined) and scale.reached.issuperset(defined)


def _too_many_definitions(document: DocumentNode) -> str | None:
    if len(document.definitions) <= DEFINITIONS_MAX:
        return None
    return f"The document has more than {DEFINITIONS_MAX} operations and fragments."


def _too_many_mentions(
    document: DocumentNode, fragments: Mapping[str, FragmentDefinitionNode]
) -> str | None:
    if mentions_of(document, fragments) <= MENTIONS_MAX:
        return None
    return f"The query asks more than {MENTIONS_MAX} times for the same field in one place."


def root_field_of(document: DocumentNode, operation: OperationDefinitionNode) -> str:
    """Name the first field of an operation, which is the only one of a subscription.

    It may stand inside fragments. The document has been validated: none contains itself.
    """
    fragments = fragments_of(document)
    first = operation.selection_set.selections[0]
    while not isinstance(first, FieldNode):
        inner = fragments[first.name.value] if isinstance(first, FragmentSpreadNode) else first
        assert isinstance(inner, InlineFragmentNode | FragmentDefinitionNode)
        first = inner.selection_set.selections[0]
    return first.name.value


def _name_of(operation: OperationDefinitionNode) -> str | None:
    return None if operation.name is None else operation.name.value


def _too_expensive(reason: str) -> GraphQLError:
    return GraphQLError(reason, extensions={"code": "QUERY_TOO_EXPENSIVE"})


class PreparedDocument(SchemaExtension):
    """Hands the prepared document to Strawberry, which would parse and validate it again."""

    def on_parse(self) -> Iterator[None]:
        """Give the parsed document."""
        context = self.execution_context
        context.graphql_document = prepare(context.schema._schema, context.query or "").document  # noqa: SLF001
        yield

    def on_validate(self) -> Iterator[None]:
        """Give the outcome of validation."""
        context = self.execution_context
        prepared = prepare(context.schema._schema, context.query or "")  # noqa: SLF001
        context.pre_execution_errors = list(prepared.errors)
        yield
