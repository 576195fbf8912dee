"""Attribute filters, as the vector-store API has them: comparisons, joined by `and` and `or`.

Text compares with text, numbers with numbers, true and false with each other; values of different kinds are
unequal and in no order. A document that lacks the attribute satisfies `ne` and `nin` and nothing else.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from index.collection.attributes import Scalar, checked_scalar, checked_text, kind_of, shown
from local_llm.errors import InvalidInputError

ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
SINGLE = ("eq", "ne", *ORDERINGS)
LISTS = ("in", "nin")
COMPOUNDS = ("and", "or")

MOST_DEPTH = 20
# Each costs a pass over all documents; a list of a million values in one `in` costs but one.
MOST_COMPARISONS = 1000


@dataclass(frozen=True)
class Comparison:
    """`values` holds one value for all types but `in` and `nin`."""

    type: str
    key: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Compound:
    type: str
    filters: "tuple[Filter, ...]"


Filter = Comparison | Compound


def parse_filter(value: Any) -> Filter:
    """A filter from the JSON of a request.

    Raises: InvalidInputError naming what is wrong with it.
    """
    found = _parsed(value, 0)
    count = _comparisons(found)
    if count > MOST_COMPARISONS:
        raise _wrong(f"{count} comparisons; expected at most {MOST_COMPARISONS}: join values with `in` or `nin`")
    return found


def _comparisons(found: Filter) -> int:
    return sum(_comparisons(one) for one in found.filters) if isinstance(found, Compound) else 1


def _parsed(value: Any, depth: int) -> Filter:
    if depth > MOST_DEPTH:
        raise _wrong(f"nested more than {MOST_DEPTH} deep")
    if not isinstance(value, Mapping) or "type" not in value:
        raise _wrong(f"expected an object with `type`, not {shown(value)}")
    kind = value["type"]
    if kind in COMPOUNDS:
        _refuse_unknown(value, {"type", "filters"})
        inner = value.get("filters")
        if not isinstance(inner, list) or not inner:
            raise _wrong(f"`{kind}` needs `filters`, a list of one or more")
        return Compound(kind, tuple(_parsed(one, depth + 1) for one in inner))
    if kind in SINGLE or kind in LISTS:
        return _comparison(kind, value)
    raise _wrong(f"type {shown(kind)} is none of {', '.join((*SINGLE, *LISTS, *COMPOUNDS))}")


def to_json(found: Filter) -> dict[str, Any]:
    """What parse_filter() reads."""
    if isinstance(found, Compound):
        return {"type": found.type, "filters": [to_json(one) for one in found.filters]}
    value = list(found.values) if found.type in LISTS else found.values[0]
    return {"type": found.type, "key": found.key, "value": value}


def matches(found: Filter, attributes: Mapping[str, Scalar]) -> bool:
    """Whether a document with these attributes passes: what every faster way must agree with."""
    if isinstance(found, Compound):
        results = (matches(one, attributes) for one in found.filters)
        return all(results) if found.type == "and" else any(results)
    return value_matches(found, attributes.get(found.key))


def value_matches(comparison: Comparison, value: Scalar | None) -> bool:
    """The same for one attribute; None: the document lacks it."""
    if comparison.type in ORDERINGS:
        bound = comparison.values[0]
        return kind_of(value) == kind_of(bound) and ORDERINGS[comparison.type](value, bound)
    among = value is not None and any(kind_of(value) == kind_of(one) and value == one for one in comparison.values)
    return among == (comparison.type in ("eq", "in"))


def _comparison(kind: str, value: Mapping[str, Any]) -> Comparison:
    _refuse_unknown(value, {"type", "key", "value"})
    key, given = value.get("key"), value.get("value")
    if not isinstance(key, str) or not key:
        raise _wrong(f"`{kind}` needs `key`, the name of an attribute")
    checked_text(key, "filters: `key`", "filters")
    if kind in LISTS and not isinstance(given, list):
        raise _wrong(f"`{kind}` needs `value`, a list")
    values = given if isinstance(given, list) else [given]
    if kind in SINGLE and (isinstance(given, list) or given is None):
        raise _wrong(f"`{kind}` needs `value`: text, a number, true or false")
    return Comparison(kind, key, tuple(checked_scalar(one, f"filters: {shown(key)}", "filters") for one in values))


def _refuse_unknown(value: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(map(str, value)) - known)
    if unknown:
        raise _wrong(f"unknown field {shown(', '.join(unknown))}")


def _wrong(reason: str) -> InvalidInputError:
    return InvalidInputError(f"filters: {reason}", param="filters")
