"""Documents parsed, measured and validated once, and remembered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    parse,
    specified_rules,
    validate,
)
from strawberry.extensions import SchemaExtension
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from controlplane.api.limiter import TOKENS_MAX, refusal

DOCUMENTS_MAX = 512
ERRORS_MAX = 10

_RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that may be executed, or why not: a text that is no document has none."""

    document: DocumentNode | None
    errors: tuple[GraphQLError, ...]


@lru_cache(DOCUMENTS_MAX)
def prepare(schema: GraphQLSchema, text: str) -> Prepared:
    """Parse, measure and validate a document."""
    try:
        document = parse(text, max_tokens=TOKENS_MAX)
    except GraphQLSyntaxError as error:
        return Prepared(None, (error,))
    except RecursionError:
        return Prepared(None, (_too_expensive("The query is nested too deeply."),))
    return Prepared(document, tuple(_errors(schema, document)))


def _errors(schema: GraphQLSchema, document: DocumentNode) -> list[GraphQLError]:
    """Measure first: some rules take long over what unfolds exponentially."""
    try:
        reason = refusal(document)
        if reason is not None:
            return [_too_expensive(reason)]
        return validate(schema, document, _RULES, max_errors=ERRORS_MAX, hide_suggestions=True)
    except RecursionError:
        return [_too_expensive("The query is nested too deeply.")]


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
