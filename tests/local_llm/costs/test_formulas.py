"""Formulas of cost: each expected figure is derived by hand beside it."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from local_llm.costs.answers import AnswersMeasured, cost_one_at_a_time
from local_llm.costs.breakeven import (
    at_equal_acceptance,
    break_even,
    break_even_requests_per_second,
    payback_months,
)
from local_llm.costs.figure import Figure, between, exactly
from local_llm.costs.local import Extras, Traffic, month, request_seconds, request_usd
from local_llm.costs.machine import Machine, owned_usd_per_hour, rented_usd_per_hour, usd_per_hour
from local_llm.costs.request import TokenPrices, hosted_usd
from local_llm.costs.throughput import (
    Saturated,
    Throughput,
    fit,
    throughput_of,
    usd_per_million_tokens,
    worst_error,
)
from local_llm.errors import InvalidInputError

TUNED, LUNA = TokenPrices(0.30, 1.20, 0.15), TokenPrices(0.10, 0.50, 0.01)
# 20,000 tokens read or 2,000 written a second.
FAST = throughput_of(prefill_tokens_per_second=20_000, decode_tokens_per_second=2_000)
NO_UPDATE = exactly(0.0, "measured", "")


@pytest.mark.parametrize(
    ("prices", "usd", "requests_per_second"),
    [
        # 2,000 x 0.30 / 10^6 + 300 x 1.20 / 10^6 = 0.0006 + 0.00036; 3.50 / 3600 / 0.00096 = 1.0127
        (TUNED, 0.00096, 1.0127),
        # 2,000 x 0.10 / 10^6 + 300 x 0.50 / 10^6 = 0.0002 + 0.00015; 3.50 / 3600 / 0.00035 = 2.7778
        (LUNA, 0.00035, 2.7778),
    ],
)
def test_the_worked_break_even_of_an_h200_at_three_dollars_fifty(
    prices: TokenPrices, usd: float, requests_per_second: float
) -> None:
    hosted = hosted_usd(prices, input_tokens=2000, output_tokens=300)
    assert hosted == pytest.approx(usd, abs=1e-12)
    rate = break_even_requests_per_second(usd_per_hour=3.5, hosted_usd_per_request=hosted)
    assert rate == pytest.approx(requests_per_second, abs=5e-5)


def test_cached_tokens_cost_their_own_price() -> None:
    # 500 x 0.30 + 1,500 x 0.15 + 300 x 1.20 = 150 + 225 + 360
    assert hosted_usd(TUNED, input_tokens=2000, output_tokens=300, cached_tokens=1500) == pytest.approx(0.000735)


def test_a_request_takes_its_share_of_the_saturated_machine() -> None:
    traffic = Traffic(input_tokens=2000, output_tokens=300, cached_tokens=500)
    # 1,500 / 20,000 + 300 / 2,000 = 0.075 + 0.15
    assert request_seconds(traffic, FAST) == pytest.approx(0.225)
    # 0.225 x 3.60 / 3600 / 0.5
    assert request_usd(traffic, FAST, usd_per_hour=3.6, utilisation=0.5) == pytest.approx(0.00045)


def test_tokens_read_and_written_have_prices_of_their_own() -> None:
    # 10^6 tokens at 20,000/s take 50 s: 50 x 3.60 / 3600 = 0.05; at half the utilisation twice that
    assert usd_per_million_tokens(
        FAST.seconds_per_prefill_token, usd_per_hour=3.6, utilisation=0.5
    ) == pytest.approx(0.10)
    # 500 s
    assert usd_per_million_tokens(FAST.seconds_per_decode_token, usd_per_hour=3.6, utilisation=1) == pytest.approx(
        0.5
    )


class TestFit:
    @given(
        st.floats(1e-6, 1e-3),
        st.floats(1e-5, 1e-2),
    )
    def test_what_made_the_measurements_is_found_again(self, prefill: float, decode: float) -> None:
        points = [
            Saturated(p, d, prefill * p + decode * d) for p, d in ((100_000, 500), (2_000, 20_000), (9e4, 9e3))
        ]
        found = fit(points)
        assert found.seconds_per_prefill_token == pytest.approx(prefill, rel=1e-6)
        assert found.seconds_per_decode_token == pytest.approx(decode, rel=1e-6)
        assert worst_error(found, points) < 1e-6

    def test_a_negative_time_is_none(self) -> None:
        # 10 a + 2 b = 1 and a + b = 1 would make a = -1/8. With a = 0: b = (2 + 1) / (4 + 1)
        assert fit([Saturated(10, 2, 1), Saturated(1, 1, 1)]) == Throughput(0.0, 0.6)

    @pytest.mark.parametrize(
        "points", [[], [Saturated(100, 10, 1)], [Saturated(100, 10, 1), Saturated(200, 20, 2)]]
    )
    def test_one_mix_tells_nothing_apart(self, points: list[Saturated]) -> None:
        with pytest.raises(InvalidInputError, match="cannot be told apart") as told:
            fit(points)
        assert "long prompt and a short answer" in str(told.value.hint)


class TestMachine:
    MACHINE = Machine(
        "H200",
        gpus=2,
        gpu_usd_per_hour=between(2.0, 4.0, "listed", "list"),
        purchase_usd=exactly(70_080.0, "assumed", "given"),
        power_watts=exactly(1_400.0, "listed", "sheet"),
        lifetime_years=4,
        pue=1.5,
        electricity_usd_per_kwh=0.20,
        hosting_usd_per_month=73.0,
    )

    def test_rent_is_that_of_all_gpus(self) -> None:
        assert rented_usd_per_hour(self.MACHINE) == Figure(4.0, 6.0, 8.0, "listed", "list")

    def test_electricity_is_that_of_the_whole_site(self) -> None:
        # 1.4 kW x 1.5 x 0.20
        assert usd_per_hour(self.MACHINE, "electricity").expected == pytest.approx(0.42)

    def test_ownership_is_depreciation_electricity_and_hosting(self) -> None:
        # 70,080 / (4 x 8,760) + 0.42 + 73 / 730 = 2.00 + 0.42 + 0.10
        owned = owned_usd_per_hour(self.MACHINE)
        assert (round(owned.expected, 2), owned.standing) == (2.52, "assumed")

    @pytest.mark.parametrize(
        ("basis", "option"),
        [("rent", "--gpu-usd-per-hour"), ("own", "--purchase-usd"), ("electricity", "--power-watts")],
    )
    def test_what_has_no_price_is_asked_for(self, basis, option: str) -> None:
        with pytest.raises(InvalidInputError, match="unpriced, and none is assumed") as told:
            usd_per_hour(Machine("H200"), basis)
        assert told.value.hint == f"set {option}"

    def test_no_price_of_electricity_is_supposed(self) -> None:
        with pytest.raises(InvalidInputError, match="price of electricity is not known"):
            usd_per_hour(Machine("H200", power_watts=exactly(700, "listed", "")), "electricity")


class TestMonth:
    HOUR = between(2.0, 4.0, "listed", "list")

    def test_idle_hours_are_paid_on_a_line_of_their_own(self) -> None:
        # 1,314,000 queries of 0.2 s: 73 h busy, a tenth of one machine's 730 h
        made = month(
            queries=1_314_000, seconds_per_query=0.2, usd_per_hour=self.HOUR, updates=2,
            update_usd=exactly(5.0, "measured", "led_1"), extras=Extras(100, 20, 3),
        )  # fmt: skip
        assert (made.machines, made.utilisation) == (1, pytest.approx(0.1))
        assert made.busy_usd.expected == pytest.approx(73 * 3)
        assert made.idle_usd.expected == pytest.approx(657 * 3)
        # 730 x 3 + 2 x 5 + 123
        assert made.total_usd.expected == pytest.approx(2323.0)
        assert made.total_usd.low == pytest.approx(730 * 2 + 10 + 123)
        assert made.usd_per_query is not None
        assert made.usd_per_query.expected == pytest.approx(730 * 3 / 1_314_000)

    def test_more_than_a_machine_can_do_takes_another(self) -> None:
        # 800 h busy of 2 x 730
        made = month(
            queries=14_400_000, seconds_per_query=0.2, usd_per_hour=self.HOUR, update_usd=NO_UPDATE, extras=Extras()
        )
        assert (made.machines, made.paid_hours) == (2, pytest.approx(1460))

    def test_a_given_utilisation_decides_the_hours_paid(self) -> None:
        made = month(
            queries=1_314_000, seconds_per_query=0.2, usd_per_hour=self.HOUR, utilisation=0.5,
            update_usd=NO_UPDATE, extras=Extras(),
        )  # fmt: skip
        assert (made.paid_hours, made.idle_usd.expected) == (pytest.approx(146), pytest.approx(73 * 3))

    def test_without_queries_there_is_no_price_of_one(self) -> None:
        made = month(
            queries=0, seconds_per_query=0.2, usd_per_hour=self.HOUR, update_usd=NO_UPDATE, extras=Extras()
        )
        assert made.usd_per_query is None
        assert (made.utilisation, made.idle_usd.expected) == (0.0, pytest.approx(730 * 3))

    @given(st.floats(0, 1e9), st.floats(0, 10), st.one_of(st.none(), st.floats(0.01, 1)))
    def test_busy_and_idle_are_all_hours_paid(
        self, queries: float, seconds: float, utilisation: float | None
    ) -> None:
        assume(utilisation is None or queries * seconds / 3600 > 0)
        made = month(
            queries=queries, seconds_per_query=seconds, usd_per_hour=self.HOUR, utilisation=utilisation,
            update_usd=NO_UPDATE, extras=Extras(),
        )  # fmt: skip
        assert made.busy_usd.expected + made.idle_usd.expected == pytest.approx(3 * made.paid_hours)
        assert 0 <= made.utilisation <= 1
        assert made.idle_usd.low >= 0


class TestBreakEven:
    def test_beyond_the_capacity_it_is_unreachable(self) -> None:
        found = break_even(usd_per_hour=3.6, hosted_usd_per_request=0.001, capacity_requests_per_second=0.5)
        assert (found.requests_per_second, found.utilisation, found.reach) == (pytest.approx(1), 2.0, "unreachable")

    def test_within_it_the_utilisation_is_told(self) -> None:
        found = break_even(usd_per_hour=3.6, hosted_usd_per_request=0.001, capacity_requests_per_second=4)
        assert (found.utilisation, found.reach) == (pytest.approx(0.25), "reachable")

    def test_without_a_capacity_nothing_is_claimed(self) -> None:
        found = break_even(usd_per_hour=3.6, hosted_usd_per_request=0.001, capacity_requests_per_second=None)
        assert (found.utilisation, found.reach) == (None, "unknown")

    def test_answers_are_compared_as_far_as_they_are_accepted(self) -> None:
        # Ours are accepted in 60, theirs in 80 of a hundred: their $0.001 is worth 0.75 of it to us, and we must do
        # 1 / 0.75 of the requests.
        equal = at_equal_acceptance(0.001, local_accepted_rate=0.6, hosted_accepted_rate=0.8)
        assert equal == pytest.approx(0.00075)

    def test_a_bought_machine_pays_for_itself_out_of_what_it_saves(self) -> None:
        # 30,000 / (2,000 - 500)
        assert payback_months(
            purchase_usd=30_000, hosted_usd_per_month=2_000, running_usd_per_month=500
        ) == pytest.approx(20)
        assert payback_months(purchase_usd=30_000, hosted_usd_per_month=500, running_usd_per_month=500) is None

    def test_nothing_is_cheaper_than_an_answer_for_nothing(self) -> None:
        with pytest.raises(InvalidInputError, match=r"costs \$0"):
            break_even_requests_per_second(usd_per_hour=1, hosted_usd_per_request=0)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: usd_per_million_tokens(1e-3, usd_per_hour=1, utilisation=1.2), "utilisation is 1.2"),
        (lambda: usd_per_million_tokens(1e-3, usd_per_hour=1, utilisation=0), "utilisation is 0"),
        (lambda: Traffic(-1, 0), "input_tokens is -1"),
        (lambda: Traffic(10, 1, cached_tokens=11), "11 tokens are cached of 10"),
        (lambda: Traffic(float("nan"), 0), "input_tokens is nan"),
        (lambda: Extras(staff_usd_per_month=-5), "staff_usd_per_month is -5"),
        (
            lambda: throughput_of(prefill_tokens_per_second=0, decode_tokens_per_second=1),
            "prefill_tokens_per_second",
        ),
        (
            lambda: month(
                queries=-1, seconds_per_query=1, usd_per_hour=NO_UPDATE, update_usd=NO_UPDATE, extras=Extras()
            ),
            "queries_per_month is -1",
        ),
        (
            lambda: month(
                queries=0,
                seconds_per_query=1,
                usd_per_hour=NO_UPDATE,
                utilisation=0.5,
                update_usd=NO_UPDATE,
                extras=Extras(),
            ),
            "nothing to answer in a month cannot be a utilisation of 0.5",
        ),
    ],
)
def test_what_cannot_be_is_told_with_its_option(made, told: str) -> None:
    with pytest.raises(InvalidInputError, match=told) as error:
        made()
    assert "--" in str(error.value.hint)


def test_answers_one_at_a_time_take_the_whole_machine() -> None:
    # 36 s of a machine of $1 an hour: $0.01, by 4 answers and 5,000 tokens
    cost = cost_one_at_a_time(AnswersMeasured(4, 36, 4_000, 1_000), 1.0)
    assert (cost.usd_per_answer, cost.usd_per_million_tokens) == (pytest.approx(0.0025), pytest.approx(2.0))
