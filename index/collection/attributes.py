"""What a document carries beside its text, as it may be stored: names, principals and the values of attributes."""

from collections.abc import Mapping, Sequence
from typing import Any

from local_llm.errors import InvalidInputError

Scalar = str | int | float | bool

# Beyond it two whole numbers can be one in floating point, which filters compare in.
LARGEST_NUMBER = 2**53
MOST_SHOWN = 100


def kind_of(value: Any) -> str:
    """Python holds True for 1; filters do not."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "nothing"


def checked_attributes(values: Any, where: str) -> dict[str, Scalar]:
    """Raises: InvalidInputError unless it maps names to what checked_scalar() takes."""
    if not isinstance(values, Mapping):
        raise InvalidInputError(f"{where}: expected names with values, not {shown(values)}", param="attributes")
    return {
        checked_text(key, f"{where}: the name of an attribute", "attributes"): checked_scalar(
            value, f"{where}: attribute {shown(key)}"
        )
        for key, value in values.items()
    }


def checked_allow(values: Any) -> tuple[str, ...]:
    """Raises: InvalidInputError unless it is a list of principals."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InvalidInputError(f"allow: expected a list of principals, not {shown(values)}", param="allow")
    return tuple(checked_text(one, "allow: a principal", "allow") for one in values)


def checked_scalar(value: Any, where: str, param: str = "attributes") -> Scalar:
    """Raises: InvalidInputError unless it is text, a finite number within ±2^53, true or false."""
    kind = kind_of(value)
    if kind == "nothing":
        raise InvalidInputError(f"{where}: expected text, a number, true or false, not {shown(value)}", param=param)
    if kind == "number" and not abs(value) <= LARGEST_NUMBER:  # NaN is no less than anything
        raise InvalidInputError(
            f"{where}: {shown(value)} is no number that can be compared exactly (at most 2^53)", param=param
        )
    return checked_text(value, where, param, empty=True) if kind == "text" else value


def checked_text(value: Any, where: str, param: str, *, empty: bool = False) -> str:
    """Raises: InvalidInputError unless it is text that a database keeps as it is."""
    if not isinstance(value, str) or not is_storable(value) or not (value or empty):
        raise InvalidInputError(
            f"{where}: expected text without NUL and without half characters, not {shown(value)}", param=param
        )
    return value


def is_storable(text: str) -> bool:
    """Whether a database would give it back: SQLite's functions end a text at a NUL, UTF-8 has no surrogates."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def shown(value: Any) -> str:
    """In ASCII, so that an error can always be told; the beginning of what is long."""
    if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        return f"a whole number of {value.bit_length()} bits"  # Python refuses to print very long ones
    text = ascii(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
