"""Numbers by label, as cheap as can be: the event loop alone adds to them, so there is nothing to lock."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Literal

Key = tuple[str, ...]
Kind = Literal["counter", "gauge", "histogram"]

# A row of a snapshot: the labels' values, and the value or (of a histogram) the counts by bucket and the sum.
Row = tuple[Key, Any]


class Tally:
    """Sums."""

    kind: Kind = "counter"

    def __init__(self, name: str, about: str, *labels: str):
        self.name, self.about, self.labels = name, about, labels
        self._values: dict[Key, float] = {}

    def add(self, key: Key, amount: float = 1) -> None:
        values = self._values
        values[key] = values.get(key, 0) + amount

    def set(self, key: Key, value: float) -> None:
        """For what somebody else counts."""
        self._values[key] = value

    def rows(self) -> list[Row]:
        return list(self._values.items())


class Gauge(Tally):
    """What is the case now."""

    kind: Kind = "gauge"


class Timing:
    """A histogram of seconds. `bounds` are the buckets' upper ends, without the last, which has none."""

    kind: Kind = "histogram"

    def __init__(self, name: str, about: str, *labels: str, bounds: Sequence[float]):
        self.name, self.about, self.labels = name, about, labels
        self.bounds = bounds
        self._values: dict[Key, list[float]] = {}

    def observe(self, key: Key, seconds: float) -> None:
        row = self._values.get(key)
        if row is None:
            row = self._values[key] = [0] * (len(self.bounds) + 2)
        row[bisect_left(self.bounds, seconds)] += 1
        row[-1] += seconds

    def rows(self) -> list[Row]:
        return [(key, list(row)) for key, row in self._values.items()]


Series = Tally | Timing
