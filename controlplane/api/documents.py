"""Documents parsed, measured and validated once, and remembered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    parse,
    specified_rules,
    validate,
)
from strawberry.extensions import SchemaExtension
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

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

DOCUMENTS_MAX = 512
SIZES_MAX = 4_096
ERRORS_MAX = 10

# One tuple for all documents: a rule class made for each would be a new key of every cache.
_RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that may be executed, or why not: a text that is no document has none.

    `size_variables` are the variables that say how large a page is.
    """

    document: DocumentNode | None
    errors: tuple[GraphQLError, ...]
    size_variables: frozenset[str] = frozenset()

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


@lru_cache(DOCUMENTS_MAX)
def prepare(schema: GraphQLSchema, text: str) -> Prepared:
    """Parse, measure and validate a document."""
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
    names = sorted(prepare(schema, text).size_variables)
    values = tuple((name, _size_value(variables.get(name))) for name in names)
    size = _size(schema, text, operation_name, values)
    reason = refusal(size)
    if reason is not None:
        raise _too_expensive(reason)
    return size.points


@lru_cache(SIZES_MAX)
def _size(
    schema: GraphQLSchema,
    text: str,
    operation_name: str | None,
    values: tuple[tuple[str, int | None], ...],
) -> Size:
    document = prepare(schema, text).document
    return Size() if document is None else measure(document, operation_name, dict(values))


def _size_value(value: object) -> int | None:
    if isinstance(value, list):
        return len(value)
    return value if isinstance(value, int) else None


def _checked(schema: GraphQLSchema, document: DocumentNode) -> Prepared:
    """Measure first: some rules take long over what unfolds exponentially."""
    try:
        # What its variables will be is not known yet: it is refused only if it is always too much.
        scale = Scale(fragments_of(document), NO_VARIABLES, unknown=1)
        reason = refusal(weigh_operations(document, scale, None))
        if reason is not None:
            return Prepared(document, (_too_expensive(reason),))
        errors = validate(schema, document, _RULES, max_errors=ERRORS_MAX, hide_suggestions=True)
    except RecursionError:
        return Prepared(document, (_too_expensive("The query is nested too deeply."),))
    return Prepared(document, tuple(errors), frozenset(scale.size_variables))


def root_field_of(operation: OperationDefinitionNode) -> str:
    """Name the first field of an operation, which is the only one of a subscription.

    It may stand inside fragments: then the name is empty.
    """
    first = operation.selection_set.selections[0]
    return first.name.value if isinstance(first, FieldNode) else ""


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
