"""The pairs of a JSON object as rows, in the words of either database."""

from typing import Any

from sqlalchemy import ColumnElement, Select, exists, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class _Pairs(FunctionElement[Any]):
    inherit_cache = True
    name = "json_each"


@compiles(_Pairs, "sqlite")
def _in_sqlite(element: _Pairs, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_Pairs, "postgresql")
def _in_postgresql(element: _Pairs, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_each_text({compiler.process(element.clauses, **options)})"


def has_pair(column: InstrumentedAttribute[Any], key: str, value: str) -> ColumnElement[bool]:
    """Whether the object in `column` has `value` under `key`; both are text."""
    query, stored = _rows(column)
    return exists(query.where(stored.c.key == key, stored.c.value == value))


def is_empty(column: InstrumentedAttribute[Any]) -> ColumnElement[bool]:
    return ~exists(_rows(column)[0])


def _rows(column: InstrumentedAttribute[Any]) -> tuple[Select[tuple[Any]], Any]:
    stored = _Pairs(column).table_valued("key", "value")
    return select(stored.c.key), stored
