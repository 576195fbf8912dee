"""Means, percentiles, costs and differences: each expected value is derived by hand."""

from collections.abc import Sequence

import pytest

from local_llm.costs.request import TokenPrices
from local_llm.evaluation.answers import Answer
from local_llm.evaluation.costs import HourPrice, busy_seconds, cost_of, dollars
from local_llm.evaluation.question_set import Question
from local_llm.evaluation.scoring import Score
from local_llm.evaluation.summary import (
    NOT_TOLD_APART,
    REAL,
    TOO_FEW,
    Judged,
    Percentiles,
    differences,
    percentiles,
    summarize,
)
from local_llm.evaluation.targets import Endpoint, Target

LOCAL = Target("base", "base", "base", Endpoint("http://127.0.0.1"))
PAST = Target("hosted", "recorded")


def judged(goods: Sequence[bool], seconds: float = 1.0, tags: tuple[str, ...] = ()) -> list[Judged]:
    return [
        Judged(
            Question(f"q{number}", ({"role": "user", "content": f"Question {number}?"},), tags=tags),
            Answer(f"{number}", "x", ttft_seconds=seconds / 2, total_seconds=seconds, asked_at=10.0 * number),
            Score(good, {"f1": float(good)}),
        )
        for number, good in enumerate(goods)
    ]


def each_its_own(rows: Sequence[Judged]) -> dict[str, int]:
    return {one.question.id: number for number, one in enumerate(rows)}


def test_percentiles_are_times_that_were_measured() -> None:
    # Nearest rank: of 20 values the 10th, the 19th, and (19.8 rounded up) the 20th.
    assert percentiles([float(value) for value in range(20, 0, -1)]) == Percentiles(10, 19, 20)
    assert percentiles([3.0]) == Percentiles(3, 3, 3)
    assert percentiles([]) == Percentiles(None, None, None)


def test_time_that_two_answers_share_is_paid_once() -> None:
    spans = [(0.0, 2.0), (1.0, 2.0), (1.5, 0.5), (100.0, 1.0)]  # 0-3 and, after a pause, 100-101
    answers = [Answer("q", asked_at=start, total_seconds=length) for start, length in spans]
    assert busy_seconds(answers) == pytest.approx(4.0, abs=1e-9)


def test_a_local_answer_costs_the_machines_time() -> None:
    # 36 s at $1 an hour are $0.01, for 2 questions of which 1 is accepted
    answers = [Answer("a", asked_at=0.0, total_seconds=36.0), Answer("b", asked_at=0.0, total_seconds=1.0)]
    found = cost_of(LOCAL, answers, 1, HourPrice(1.0))
    assert found.usd_per_question == pytest.approx(0.005, abs=1e-9)
    assert found.usd_per_accepted_answer == pytest.approx(0.01, abs=1e-9)
    assert "36.0 s" in found.basis


def test_an_hour_that_nobody_priced_is_told_as_assumed() -> None:
    answers = [Answer("a", asked_at=0.0, total_seconds=36.0)]
    told = "x $1 an hour (assumed: nobody set cost.machine_usd_per_hour)"
    assert cost_of(LOCAL, answers, 1, HourPrice(1.0, assumed=True)).basis.endswith(told)
    assert "assumed" not in cost_of(LOCAL, answers, 1, HourPrice(1.0)).basis


def test_a_hosted_answer_costs_its_tokens() -> None:
    target = Target("hosted", "recorded", prices=TokenPrices(1.0, 2.0))
    answers = [Answer("a", input_tokens=100, output_tokens=50), Answer("b", error="503")]
    # (100 * 1 + 50 * 2) / 10^6, over two questions
    assert cost_of(target, answers, 1, HourPrice(None)).usd_per_question == pytest.approx(0.0001, abs=1e-12)
    assert cost_of(target, [Answer("a", input_tokens=9)], 1, HourPrice(None)).basis == "its tokens are not known"


@pytest.mark.parametrize(
    ("target", "machine"),
    [(PAST, 1.0), (LOCAL, None), (LOCAL, 0.0), (Target("f", "recorded", prices=TokenPrices(0, 0)), 1.0)],
)
def test_what_has_no_price_is_unpriced_and_never_free(target: Target, machine: float | None) -> None:
    answers = [Answer("a", input_tokens=1, output_tokens=1, asked_at=0.0, total_seconds=1.0)]
    found = cost_of(target, answers, 1, HourPrice(machine))
    assert (found.usd_per_question, found.usd_per_accepted_answer) == (None, None)
    assert (found.per_question, found.per_accepted) == ("unpriced", "unpriced")


def test_where_no_answer_is_accepted_there_is_no_price_of_one() -> None:
    found = cost_of(LOCAL, [Answer("a", asked_at=0.0, total_seconds=36.0)], 0, HourPrice(1.0))
    assert (found.usd_per_accepted_answer, found.per_accepted) == (None, "none accepted")
    assert found.per_question == "$0.01000"


@pytest.mark.parametrize(
    ("usd", "told"), [(0.000001159, "$0.000001159"), (0.05, "$0.05000"), (1.5, "$1.500"), (1234.5, "$1,234.50")]
)
def test_small_sums_are_told_in_digits_that_count(usd: float, told: str) -> None:
    assert dollars(usd) == told


def test_of_one_question_no_interval_is_told() -> None:
    rows = judged([True])
    found = summarize(LOCAL, rows, each_its_own(rows), hour=HourPrice(1.0))
    assert found.accepted_share is not None
    assert (found.accepted_share.mean, found.accepted_share.low, found.accepted_share.high) == (1.0, None, None)
    (accepted, *_) = differences({"a": rows, "b": judged([False])}, each_its_own(rows))
    assert (accepted.low, accepted.verdict, accepted.better) == (None, TOO_FEW, None)


def test_questions_that_say_the_same_count_as_one_case() -> None:
    rows = judged([True] * 8)
    same = dict.fromkeys(each_its_own(rows), 0)
    found = summarize(LOCAL, rows, same, hour=HourPrice(None))
    assert found.accepted_share is not None
    assert found.accepted_share.low is None


def test_five_questions_prove_nothing_and_six_do() -> None:
    for count, verdict in ((5, TOO_FEW), (6, REAL)):
        good, bad = judged([True] * count), judged([False] * count)
        found = {one.measure: one for one in differences({"a": good, "b": bad}, each_its_own(good))}
        assert found["accepted"].verdict == verdict


def test_of_seconds_fewer_are_better() -> None:
    fast, slow = judged([True] * 8, 1.0), judged([True] * 8, 2.0)
    found = {one.measure: one for one in differences({"slow": slow, "fast": fast}, each_its_own(fast))}
    assert found["total_seconds"].mean == 1.0
    assert found["total_seconds"].better == "fast"
    assert (found["accepted"].verdict, found["accepted"].better) == (NOT_TOLD_APART, None)


def test_pairs_are_of_questions_that_both_answered() -> None:
    whole, part = judged([True] * 8), judged([True] * 8)[:3]
    found = {one.measure: one for one in differences({"a": whole, "b": part}, each_its_own(whole))}
    assert found["accepted"].cases == 3


def test_answers_are_counted_by_tag() -> None:
    rows = [*judged([True, False], tags=("device",))]
    assert summarize(LOCAL, rows, each_its_own(rows), hour=HourPrice(None)).by_tag == {"device": (2, 1)}
