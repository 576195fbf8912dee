"""How well a ranking of documents answers a question whose documents are known, and how sure a difference is.

`ranked` holds each document once, best first; `gold` is not empty; all results are in [0, 1].
"""

from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import astuple, dataclass, fields
from math import log2

import numpy as np
from numpy.typing import NDArray

from local_llm.bootstrap import Interval, intervals

CUT = 10
RECALL_CUT = 5


@dataclass(frozen=True)
class Measures:
    """Of one question, or the means of several."""

    ndcg_10: float
    recall_5: float
    mrr_10: float
    accuracy_1: float


NAMES = tuple(field.name for field in fields(Measures))


def measure(ranked: Sequence[str], gold: AbstractSet[str]) -> Measures:
    return Measures(ndcg(ranked, gold), recall(ranked, gold), reciprocal_rank(ranked, gold), accuracy(ranked, gold))


def ndcg(ranked: Sequence[str], gold: AbstractSet[str]) -> float:
    """nDCG@10 with gains of 0 and 1. Source: Järvelin and Kekäläinen 2002, discount log2(rank + 1)."""
    found = sum(1 / log2(rank + 1) for rank, one in enumerate(ranked[:CUT], 1) if one in gold)
    return found / sum(1 / log2(rank + 1) for rank in range(1, min(CUT, len(gold)) + 1))


def recall(ranked: Sequence[str], gold: AbstractSet[str]) -> float:
    """recall@5: the share of the gold documents that is among the first five."""
    return len(gold & set(ranked[:RECALL_CUT])) / len(gold)


def reciprocal_rank(ranked: Sequence[str], gold: AbstractSet[str]) -> float:
    """MRR@10 of one question."""
    return next((1 / rank for rank, one in enumerate(ranked[:CUT], 1) if one in gold), 0.0)


def accuracy(ranked: Sequence[str], gold: AbstractSet[str]) -> float:
    """accuracy@1"""
    return float(bool(ranked) and ranked[0] in gold)


def as_array(measures: Sequence[Measures]) -> NDArray[np.float64]:
    """float64 [questions, measures], columns as in NAMES."""
    return np.array([astuple(one) for one in measures], np.float64).reshape(-1, len(NAMES))


def means(measures: Sequence[Measures]) -> Measures:
    return Measures(*as_array(measures).mean(axis=0).tolist())


def differences(
    with_part: Sequence[Measures], without: Sequence[Measures], groups: Sequence[Hashable] | None = None
) -> dict[str, Interval]:
    """By how much the means differ, for each measure, over the same questions: paired bootstrap, at 95 %."""
    return dict(zip(NAMES, intervals(as_array(with_part) - as_array(without), groups), strict=True))
