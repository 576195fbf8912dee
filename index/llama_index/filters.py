"""LlamaIndex's metadata filters as ours."""

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from local_llm.errors import InvalidInputError

OPERATORS = {
    FilterOperator.EQ: "eq",
    FilterOperator.NE: "ne",
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
    FilterOperator.IN: "in",
    FilterOperator.NIN: "nin",
}
CONDITIONS = {FilterCondition.AND: "and", FilterCondition.OR: "or"}

Json = Mapping[str, Any]


def filter_of(filters: MetadataFilters | None) -> Json | None:
    """What `Index.search` takes; None where nothing is filtered.

    Raises: InvalidInputError naming what has no counterpart: NOT, text_match, contains, any, all, is_empty.
    """
    if filters is None or not filters.filters:
        return None
    condition = filters.condition or FilterCondition.AND
    if condition not in CONDITIONS:
        raise _unknown(f"the condition {condition.value!r}")
    inner = [_comparison(one) if isinstance(one, MetadataFilter) else filter_of(one) for one in filters.filters]
    return joined(CONDITIONS[condition], [one for one in inner if one is not None])


def joined(condition: str, filters: Sequence[Json]) -> Json | None:
    """`condition` is "and" or "or". One filter alone stays as it is, none is None."""
    return {"type": condition, "filters": list(filters)} if len(filters) > 1 else next(iter(filters), None)


def _comparison(found: MetadataFilter) -> Json:
    if found.operator not in OPERATORS:
        raise _unknown(f"the operator {found.operator.value!r} (on {found.key!r})")
    return {"type": OPERATORS[found.operator], "key": found.key, "value": found.value}


def _unknown(what: str) -> InvalidInputError:
    known = ", ".join(one.value for one in (*OPERATORS, *CONDITIONS))
    return InvalidInputError(f"filters: {what} is not known here; expected one of {known}", param="filters")
