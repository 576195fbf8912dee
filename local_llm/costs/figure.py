"""A figure with its bounds, and what it rests on."""

from dataclasses import dataclass, replace
from typing import Literal

from local_llm.errors import InvalidInputError

# measured: here, on the hardware it speaks of, and `source` is the run's id. listed: a price of the price file.
# assumed: anything else, and `source` says what was supposed.
Standing = Literal["measured", "listed", "assumed"]


@dataclass(frozen=True)
class Figure:
    """low <= expected <= high, in the unit that whoever holds it names."""

    low: float
    expected: float
    high: float
    standing: Standing
    source: str

    def times(self, factor: float) -> "Figure":
        return replace(self, low=self.low * factor, expected=self.expected * factor, high=self.high * factor)

    def plus(self, other: "Figure") -> "Figure":
        """The sum stands as its weaker part does."""
        return Figure(
            self.low + other.low,
            self.expected + other.expected,
            self.high + other.high,
            weaker(self.standing, other.standing),
            "; ".join(dict.fromkeys(filter(None, (self.source, other.source)))),
        )


def exactly(value: float, standing: Standing, source: str) -> Figure:
    return Figure(value, value, value, standing, source)


def between(low: float, high: float, standing: Standing, source: str) -> Figure:
    """Expected is the middle: where only the ends are known, nothing better is."""
    return Figure(low, (low + high) / 2, high, standing, source)


def weaker(one: Standing, other: Standing) -> Standing:
    order: tuple[Standing, ...] = ("assumed", "listed", "measured")
    return min(one, other, key=order.index)


INFINITE = float("inf")


def refuse_negative(**values: float | None) -> None:
    """Raises: InvalidInputError naming each that is below zero, or no number."""
    wrong = {name: value for name, value in values.items() if value is not None and not 0 <= value < INFINITE}
    _refuse(wrong, "zero or more")


def refuse_not_positive(**values: float) -> None:
    """Raises: InvalidInputError naming each that is zero or less, or no number."""
    _refuse({name: value for name, value in values.items() if not 0 < value < INFINITE}, "more than zero")


def refuse_not_a_share(**values: float) -> None:
    """Raises: InvalidInputError for what is not above 0 and at most 1."""
    wrong = {name: value for name, value in values.items() if not 0 < value <= 1}
    _refuse(wrong, "a share above 0 and at most 1")


def _refuse(wrong: dict[str, float], expected: str) -> None:
    if wrong:
        told = "; ".join(f"{name} is {value:g}" for name, value in wrong.items())
        options = ", ".join("--" + name.replace("_", "-") for name in wrong)
        raise InvalidInputError(f"{told}; expected {expected}", hint=f"set {options}")
