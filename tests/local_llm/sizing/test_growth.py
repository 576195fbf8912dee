"""Laws of growth: points on a known curve give it back, and points off it are told by the residual."""

import math

import pytest

from local_llm.errors import InvalidInputError
from local_llm.sizing.growth import fit_power, line_through_largest


def test_a_power_is_given_back() -> None:
    sizes = [10, 100, 1000, 5000]
    law = fit_power(sizes, [3 * size**0.5 for size in sizes])
    assert law.exponent == pytest.approx(0.5, abs=1e-12)
    assert law.coefficient == pytest.approx(3, abs=1e-9)
    assert law.residual == pytest.approx(0, abs=1e-9)
    assert law.at(40_000) == pytest.approx(600)


def test_the_residual_is_the_share_by_which_points_are_missed() -> None:
    """Logarithms 0, 1 + m, 2 over those of the sizes, 0, 1, 2: the line has slope 1 and constant m / 3, and misses
    by -m/3, 2m/3, -m/3: the root of (1 + 4 + 1) m² / 27 is m √2 / 3."""
    miss = 0.03
    law = fit_power([1, math.e, math.e**2], [1, math.exp(1 + miss), math.exp(2)])
    assert law.exponent == pytest.approx(1)
    assert math.log(law.coefficient) == pytest.approx(miss / 3)
    assert law.residual == pytest.approx(miss * math.sqrt(2) / 3)


def test_the_line_goes_through_the_two_largest_whatever_their_order() -> None:
    line = line_through_largest([300, 10, 100], [7.0, 100.0, 3.0])
    assert (line.each, line.fixed) == (pytest.approx(0.02), pytest.approx(1.0))
    assert line.at(1000) == pytest.approx(21)


def test_a_cost_that_fell_is_taken_not_to_grow() -> None:
    assert line_through_largest([10, 20], [5.0, 4.0]).at(10**9) == 4.0


@pytest.mark.parametrize("fit", [fit_power, line_through_largest])
@pytest.mark.parametrize("sizes", [[], [10], [10, 10]])
def test_one_size_has_no_law(fit, sizes: list[float]) -> None:
    with pytest.raises(InvalidInputError, match="two different sizes"):
        fit(sizes, [1.0] * len(sizes))


def test_a_cost_of_nothing_has_no_power() -> None:
    with pytest.raises(InvalidInputError, match="cost is 0"):
        fit_power([1, 2], [0, 1])


def test_a_power_can_be_led_through_another_point() -> None:
    law = fit_power([1, 4], [1, 2]).through(100, 30)
    assert law.at(100) == pytest.approx(30)
    assert law.at(400) == pytest.approx(60)
