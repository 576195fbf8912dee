"""Attribute filters, as the vector-store API has them: comparisons, joined by `and` and `or`.

Text compares with text, numbers with numbers, true and false with each other; values of different kinds are
unequal and in no order. A document that lacks the attribute satisfies `ne` and `nin` and nothing else.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from local_llm.errors import InvalidInputError

Scalar = str | int | float | bool

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
# Beyond it two whole numbers can be one in floating point, which filters compare in.
LARGEST_NUMBER = 2**53


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


def parse_filter(value: Any, *, depth: int = 0) -> Filter:
    """A filter from the JSON of a request.

    Raises: InvalidInputError naming what is wrong with it.
    """
    if not isinstance(value, Mapping) or "type" not in value:
        raise _wrong(f"expected an object with `type`, not {value!r}")
    if depth > MOST_DEPTH:
        raise _wrong(f"nested more than {MOST_DEPTH} deep")
    kind = value["type"]
    if kind in COMPOUNDS:
        _refuse_unknown(value, {"type", "filters"})
        inner = value.get("filters")
        if not isinstance(inner, list) or not inner:
            raise _wrong(f"`{kind}` needs `filters`, a list of one or more")
        return Compound(kind, tuple(parse_filter(one, depth=depth + 1) for one in inner))
    if kind in SINGLE or kind in LISTS:
        return _comparison(kind, value)
    raise _wrong(f"type {kind!r} is none of {', '.join((*SINGLE, *LISTS, *COMPOUNDS))}")


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


def kind_of(value: Any) -> str:
    """Python holds True for 1; filters do not."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "nothing"


def checked_scalar(value: Any, where: str) -> Scalar:
    """Raises: InvalidInputError unless it is text, a finite number within ±2^53, true or false."""
    kind = kind_of(value)
    if kind == "nothing":
        raise _wrong(f"{where}: expected text, a number, true or false, not {value!r}")
    if kind == "number" and not (math.isfinite(value) and abs(value) <= LARGEST_NUMBER):
        raise _wrong(f"{where}: {value!r} is no number that can be compared exactly (at most 2^53)")
    return value


def _comparison(kind: str, value: Mapping[str, Any]) -> Comparison:
    _refuse_unknown(value, {"type", "key", "value"})
    key, given = value.get("key"), value.get("value")
    if not isinstance(key, str) or not key:
        raise _wrong(f"`{kind}` needs `key`, the name of an attribute")
    if kind in LISTS and not isinstance(given, list):
        raise _wrong(f"`{kind}` needs `value`, a list")
    values = given if isinstance(given, list) else [given]
    if kind in SINGLE and (isinstance(given, list) or given is None):
        raise _wrong(f"`{kind}` needs `value`: text, a number, true or false")
    return Comparison(kind, key, tuple(checked_scalar(one, f"`{key}`") for one in values))


def _refuse_unknown(value: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(map(str, value)) - known)
    if unknown:
        raise _wrong(f"unknown field {', '.join(unknown)}")


def _wrong(reason: str) -> InvalidInputError:
    return InvalidInputError(f"filters: {reason}", param="filters")
