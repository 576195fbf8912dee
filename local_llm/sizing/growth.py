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


def fit_power(sizes: Sequence[float], costs: Sequence[float]) -> Power:
    """The straight line through the logarithms, by least squares.

    exponent = cov(ln size, ln cost) / var(ln size). A cost with a fixed part grows more slowly at small sizes than
    at large ones: the residual tells of it, the exponent alone does not.

    Raises: InvalidInputError for fewer than two different sizes, or anything that is not above zero.
    """
    if len(sizes) != len(costs) or len(set(sizes)) < 2:
        raise InvalidInputError(
            f"{len(sizes)} sizes, {len(set(sizes))} of them different, and {len(costs)} costs; expected as many of "
            "both, and two different sizes at least",
            hint="measure another size: scripts/bench_growth.py --passages",
        )
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
