"""How much of the inverted lists a search looks at: what reaches a target, from where true neighbours lie."""

import math
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.vectors.brute_force import RowNumbers
from index.vectors.rows import Vectors

K = 10  # recall@10
# The nearest ten of a filter that admits one row in a hundred are among about the nearest thousand of all.
DEPTHS = (10, 32, 100, 316, 1000)
# Source: docs/benchmarks.md: with 200 candidates made exact for ten results the codes cost nearly no recall.
CANDIDATES = 200
MOST_CANDIDATES = 1600
CANDIDATES_A_RESULT = 4  # for larger k
# Tuned a little above the target, so that other questions than those measured reach it too.
MARGIN = 0.005
LARGER_STEP = 1.15
# A guess for searches before anything was measured: about what medical sentences need.
UNMEASURED_SHARE = 0.08


@dataclass(frozen=True)
class Effort:
    """probes: lists to look at for results as deep as each of DEPTHS; candidates: rows that are scored exactly."""

    probes: tuple[int, ...]
    candidates: int = CANDIDATES

    def probes_for(self, depth: float) -> int:
        """Between measured depths by a line through their logarithms; beyond, by the square root of the depth."""
        at = bisect_left(DEPTHS, depth)
        if at == 0:
            return self.probes[0]
        if at == len(DEPTHS):
            return math.ceil(self.probes[-1] * (depth / DEPTHS[-1]) ** 0.5)
        share = math.log(depth / DEPTHS[at - 1]) / math.log(DEPTHS[at] / DEPTHS[at - 1])
        return math.ceil(self.probes[at - 1] + share * (self.probes[at] - self.probes[at - 1]))

    def candidates_for(self, k: int) -> int:
        return max(self.candidates, CANDIDATES_A_RESULT * k)

    def larger(self, factor: float) -> "Effort":
        return Effort(tuple(math.ceil(probes * factor) for probes in self.probes), self.candidates)

    def with_more_candidates(self) -> "Effort":
        return Effort(self.probes, 2 * self.candidates)


def unmeasured(lists: int) -> Effort:
    return Effort(tuple(math.ceil(min(1.0, UNMEASURED_SHARE * 1.5**step) * lists) for step in range(len(DEPTHS))))


def from_list_ranks(ranks: NDArray[np.int64], target: float) -> Effort:
    """The least number of lists that holds `target` of the true neighbours, for each depth.

    ranks: int64 [queries, depth]: for each true neighbour, best first, how many lists are nearer than its own.
    """
    share = min(1.0, target + MARGIN)
    return Effort(tuple(int(np.quantile(ranks[:, :depth], share, method="higher")) + 1 for depth in DEPTHS))


def list_ranks(queries: Vectors, centroids: Vectors, lists: NDArray) -> NDArray[np.int64]:
    """lists: [queries, depth], the list of each true neighbour. Returns: as `from_list_ranks` takes it."""
    order = np.argsort(-(queries @ centroids.T), axis=1)
    rank_of_list = np.empty_like(order)
    np.put_along_axis(rank_of_list, order, np.arange(order.shape[1])[None], axis=1)
    return np.take_along_axis(rank_of_list, lists.astype(np.int64), axis=1)


def recall(found: RowNumbers, true: RowNumbers) -> float:
    """The share of the true ones that were found, over all queries. Both: int64 [queries, k], -1 where none."""
    hits = sum(len(set(line) & set(goal)) for line, goal in zip(found.tolist(), true.tolist(), strict=True))
    return hits / max(1, true.size)
