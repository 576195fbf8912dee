"""Paired bootstrap: bounds that can be known by hand."""

import pytest

from local_llm.bootstrap import interval, intervals


def test_equal_differences_leave_no_doubt() -> None:
    found = interval([0.25] * 20)
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)
    assert found.is_certain


def test_bounds_are_those_of_a_coin() -> None:
    # 100 cases, half 0 and half 1: the mean of a draw is binomial, standard deviation 0.05, 95 % within 0.4 to 0.6.
    found = interval([0.0, 1.0] * 50)
    assert found.mean == pytest.approx(0.5)
    assert found.low == pytest.approx(0.4, abs=0.02)
    assert found.high == pytest.approx(0.6, abs=0.02)


def test_cases_of_one_source_count_as_one_draw() -> None:
    """Ten groups of a hundred equal cases know as much as ten cases."""
    values = [float(group % 2) for group in range(10) for _ in range(100)]
    groups = [group for group in range(10) for _ in range(100)]
    grouped, alone = interval(values, groups), interval([float(group % 2) for group in range(10)])
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high))
    assert grouped.high - grouped.low > 5 * (interval(values).high - interval(values).low)


def test_columns_share_their_draws() -> None:
    one, same = intervals([[0.1, 0.1], [0.7, 0.7], [0.4, 0.4]])
    assert one == same


def test_no_case_is_an_error() -> None:
    with pytest.raises(ValueError, match="no cases"):
        interval([])
