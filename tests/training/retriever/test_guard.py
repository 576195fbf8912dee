"""The guard: what is certain, and what only looks so because the draws know few groups."""

import pytest

from local_llm.bootstrap import FEWEST_GROUPS
from local_llm.relevance import Measures
from training.retriever import guard


def side(gains: list[float], groups: list[int]) -> guard.Side:
    before = [Measures(0.5, 0.5, 0.5, 0.0)] * len(gains)
    after = [Measures(0.5 + gain, 0.5, 0.5, 0.0) for gain in gains]
    return guard.compared(before, after, groups)


@pytest.mark.parametrize("gains", [[0.4], [0.4] * 19 + [-0.4]])
def test_one_group_of_questions_is_never_certainly_better(gains: list[float]) -> None:
    found = side(gains, [0] * len(gains))
    assert found.decisive.low > 0  # there is but one way to draw it
    assert not guard.is_better(found)
    assert "is not certainly better" in guard.reason(found)
    assert "1 groups that share documents" in guard.reason(found)


def test_groups_enough_that_all_gained_are_certainly_better() -> None:
    assert not guard.is_better(side([0.1] * (FEWEST_GROUPS - 1), list(range(FEWEST_GROUPS - 1))))
    assert guard.is_better(side([0.1] * FEWEST_GROUPS, list(range(FEWEST_GROUPS))))


def test_a_loss_in_few_groups_is_not_certain_either() -> None:
    assert "certainly worse" not in guard.reason(side([-0.1] * 2, [0, 1]))
    assert "certainly worse" in guard.reason(side([-0.1] * FEWEST_GROUPS, list(range(FEWEST_GROUPS))))
