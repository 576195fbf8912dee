"""How a cost grows with size: the power of the size that fits what was measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from local_llm.costs.figure import refuse_not_positive
from local_llm.errors import InvalidInputError


@dataclass(frozen=True)
class Power:
    """cost = coefficient x size ** exponent. residual: the root mean square of ln(measured / fitted), about the
    share by which the law misses a point: 0 where it meets them all."""

    coefficient: float
    exponent: float
    residual: float

    def at(self, size: float) -> float:
        return self.coefficient * size**self.exponent

    def through(self, size: float, cost: float) -> "Power":
        """The same power of the size, through this point: cost x (n / size) ** exponent."""
        return Power(cost / size**self.exponent, self.exponent, self.residual)


def fit_power(sizes: Sequence[float], costs: Sequence[float]) -> Power:
    """The straight line through the logarithms, by least squares.

    exponent = cov(ln size, ln cost) / var(ln size). A cost with a fixed part grows more slowly at small sizes than
    at large ones: the residual tells of it, the exponent alone does not.

    Raises: InvalidInputError for fewer than two different sizes, or anything that is not above zero.
    """
    if len(sizes) != len(costs) or len(set(sizes)) < 2:
        raise _too_few(sizes, costs)
    for size, cost in zip(sizes, costs, strict=True):
        refuse_not_positive(size=size, cost=cost)
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    exponent = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum(
        (a - mean_x) ** 2 for a in x
    )
    constant = mean_y - exponent * mean_x
    misses = [(b - constant - exponent * a) ** 2 for a, b in zip(x, y, strict=True)]
    return Power(math.exp(constant), exponent, math.sqrt(sum(misses) / len(misses)))


@dataclass(frozen=True)
class Line:
    """cost = fixed + each x size."""

    fixed: float
    each: float

    def at(self, size: float) -> float:
        return self.fixed + self.each * size


def line_through_largest(sizes: Sequence[float], costs: Sequence[float]) -> Line:
    """The straight line through the two largest sizes: where a fixed part has become small, what is to be added.

    each = (cost 2 - cost 1) / (size 2 - size 1). A slope below zero is taken as none.

    Raises: InvalidInputError for fewer than two different sizes.
    """
    points = sorted(zip(sizes, costs, strict=True))[-2:]
    if len(points) < 2 or points[0][0] == points[1][0]:
        raise _too_few(sizes, costs)
    (size, cost), (larger, dearer) = points
    each = max(0.0, (dearer - cost) / (larger - size))
    return Line(dearer - each * larger, each)


def _too_few(sizes: Sequence[float], costs: Sequence[float]) -> InvalidInputError:
    return InvalidInputError(
        f"{len(sizes)} sizes, {len(set(sizes))} of them different, and {len(costs)} costs; expected as many of "
        "both, and two different sizes at least",
        hint="measure another size: scripts/bench_growth.py --passages",
    )
