"""How sure a difference is: paired bootstrap.

Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (percentile intervals); by whole
clusters where cases come in groups that share a source (Field and Welsh 2007, "Bootstrapping clustered data").
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
SEED = 7
CONFIDENCE = 0.95
# With fewer groups, even if all of them were better, chance would do as much in more than one of twenty cases, and
# the draws, which know only these, show nothing of it.
# Source: the sign test, two-sided: 2 * 0.5^n < 0.05 first holds for n = 6.
FEWEST_GROUPS = 6


@dataclass(frozen=True)
class Interval:
    """A mean with its bounds at 95 %."""

    mean: float
    low: float
    high: float

    @property
    def is_certain(self) -> bool:
        """Whether a difference with this interval is one: zero lies outside."""
        return self.low > 0 or self.high < 0


def interval(values: ArrayLike, groups: Sequence[Hashable] | None = None) -> Interval:
    """Of the mean of `values` [cases]: for a paired difference, one minus the other, case by case.

    `groups`: which article, focus or document each case is of; whole groups are drawn then.

    Raises: ValueError without any case.
    """
    (only,) = intervals(np.asarray(values, np.float64).reshape(-1, 1), groups)
    return only


def intervals(values: ArrayLike, groups: Sequence[Hashable] | None = None) -> list[Interval]:
    """The same for each column of `values` [cases, columns], all over the same draws."""
    cases = np.asarray(values, np.float64)
    if not len(cases):
        raise ValueError("no cases: there is nothing to draw from")
    sums, sizes = _by_group(cases, groups)
    drawn = np.random.default_rng(SEED).integers(0, len(sums), (RESAMPLES, len(sums)))
    means = [sums[sample].sum(axis=0) / sizes[sample].sum() for sample in drawn]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail), axis=0)
    return [
        Interval(float(mean), float(bottom), float(top))
        for mean, bottom, top in zip(cases.mean(axis=0), low, high, strict=True)
    ]


def _by_group(
    cases: NDArray[np.float64], groups: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums [groups, columns] and sizes [groups] of each group's cases; without groups each case is one."""
    if groups is None:
        return cases, np.ones(len(cases))
    if len(groups) != len(cases):
        raise ValueError(f"{len(groups)} groups for {len(cases)} cases")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    of_case = np.array([numbers[group] for group in groups])
    sums = np.zeros((len(numbers), cases.shape[1]))
    np.add.at(sums, of_case, cases)
    return sums, np.bincount(of_case, minlength=len(numbers)).astype(np.float64)
