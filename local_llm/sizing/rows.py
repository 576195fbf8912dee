"""A row of a sizing table: figures with their standing, and their formula or where they were measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from local_llm.sizing.measured import Standing

Unit = Literal["bytes", "ms", "seconds", "hours", "count", "a second"]


@dataclass(frozen=True)
class Row:
    """values: one for each column; None: not known, and `how` says what is missing."""

    what: str
    unit: Unit
    values: tuple[float | None, ...]
    standing: Standing
    how: str


def computed(columns: Sequence[float]) -> Callable[[str, Unit, Callable[[float], float], str], Row]:
    """A maker of rows by a formula of the column: what, unit, the formula, and the formula as people read it."""

    def row(what: str, unit: Unit, formula: Callable[[float], float], how: str) -> Row:
        return Row(what, unit, tuple(formula(column) for column in columns), "computed", how)

    return row
