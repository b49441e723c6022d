"""SQL that SQLite and PostgreSQL spell differently."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import String


class TagValue(FunctionElement[str]):
    """The value of one tag, of the column of tags and a name; NULL where there is none."""

    type = String()
    inherit_cache = True
    name = "tag_value"


class ByteOrder(FunctionElement[str]):
    """A text that sorts by its bytes in UTF-8, whatever language the database is set to."""

    type = String()
    inherit_cache = True
    name = "byte_order"


def _operands(element: FunctionElement[Any], compiler: SQLCompiler, **options: Any) -> list[str]:
    return [compiler.process(each, **options) for each in element.clauses]


# A path would do, but not for every name: one may hold quotes and begin with a dollar sign.
@compiles(TagValue)
def _tag_value_sqlite(element: TagValue, compiler: SQLCompiler, **options: Any) -> str:
    tags, name = _operands(element, compiler, **options)
    # Both are names of columns or placeholders of parameters, never values.
    return f"(SELECT tag.value FROM json_each({tags}) AS tag WHERE tag.key = {name})"  # noqa: S608


@compiles(TagValue, "postgresql")
def _tag_value_postgresql(element: TagValue, compiler: SQLCompiler, **options: Any) -> str:
    tags, name = _operands(element, compiler, **options)
    return f"({tags} ->> {name})"


@compiles(ByteOrder)
def _byte_order_sqlite(element: ByteOrder, compiler: SQLCompiler, **options: Any) -> str:
    return _operands(element, compiler, **options)[0]


@compiles(ByteOrder, "postgresql")
def _byte_order_postgresql(element: ByteOrder, compiler: SQLCompiler, **options: Any) -> str:
    return f'({_operands(element, compiler, **options)[0]} COLLATE "C")'
