"""Strawberry's decorators of resolvers, typed: a function stays the function it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any, TypeVar, cast

import strawberry
from strawberry.types.enum import StrawberryEnumDefinition

F = TypeVar("F", bound=Callable[..., Any])


def resolved(description: str) -> Callable[[F], F]:
    """Make a field of a function."""
    return cast("Callable[[F], F]", strawberry.field(description=description))


def mutation(description: str) -> Callable[[F], F]:
    """Make a mutation of a function, whose one argument is `input`."""
    make = cast("Callable[[F], F]", strawberry.mutation(description=description))
    about_input = strawberry.argument(
        description="What to change; what you can mend comes back in the payload's `errors`, and "
        "then nothing was changed."
    )

    def described(function: F) -> F:
        names = function.__annotations__
        names["input"] = Annotated[names["input"], about_input]
        return make(function)

    return described


def subscription(description: str) -> Callable[[F], F]:
    """Make a subscription of a function."""
    return cast("Callable[[F], F]", strawberry.subscription(description=description))


def enumeration(
    kind: type[StrEnum], name: str, description: str, values: Mapping[StrEnum, str]
) -> None:
    """Show an enumeration of the domain, with a description of each of its values."""
    strawberry.enum(kind, name=name, description=description)
    definition: StrawberryEnumDefinition = kind.__strawberry_definition__  # type: ignore[attr-defined]
    for each in definition.values:
        each.description = values[kind(each.value)]
