"""Metrics of ranking: each expected value is derived by hand."""

from math import log2

import pytest

from local_llm.relevance import Measures, accuracy, differences, means, ndcg, recall, reciprocal_rank


def test_ndcg_of_two_gold_documents_at_ranks_one_and_three() -> None:
    # DCG = 1/log2(2) + 1/log2(4) = 1 + 0.5 = 1.5; ideal = 1/log2(2) + 1/log2(3) = 1 + 0.6309297535714575
    # 1.5 / 1.6309297535714575 = 0.9197207891481876
    assert ndcg(["a", "x", "b"], {"a", "b"}) == pytest.approx(0.9197207891481876, abs=1e-9)


def test_ndcg_looks_at_ten_documents() -> None:
    others = [f"x{number}" for number in range(10)]
    # At rank 10 the gain is 1/log2(11) = 0.2890648263178879 of an ideal 1; at rank 11 nothing.
    assert ndcg([*others[:9], "a"], {"a"}) == pytest.approx(0.2890648263178879, abs=1e-9)
    assert ndcg([*others, "a"], {"a"}) == 0


def test_ideal_of_more_gold_documents_than_ten_is_ten_of_them() -> None:
    gold = {f"g{number}" for number in range(12)}
    assert ndcg(sorted(gold)[:10], gold) == pytest.approx(1, abs=1e-9)


def test_recall_is_the_share_of_gold_among_five() -> None:
    # a and c are among the first five, f is the sixth: 2 of 3.
    assert recall(["a", "b", "c", "d", "e", "f"], {"a", "c", "f"}) == pytest.approx(2 / 3, abs=1e-9)


def test_reciprocal_rank_is_of_the_first_gold_document() -> None:
    assert reciprocal_rank(["x", "y", "a", "b"], {"a", "b"}) == pytest.approx(1 / 3, abs=1e-9)
    assert reciprocal_rank([f"x{number}" for number in range(10)] + ["a"], {"a"}) == 0


def test_accuracy_is_of_the_first_document() -> None:
    assert accuracy(["a", "x"], {"a"}) == 1
    assert accuracy(["x", "a"], {"a"}) == 0
    assert accuracy([], {"a"}) == 0


def test_nothing_found_scores_nothing() -> None:
    assert (ndcg([], {"a"}), recall([], {"a"}), reciprocal_rank([], {"a"})) == (0, 0, 0)


def test_means_are_taken_measure_by_measure() -> None:
    # (1 + 1/log2(3)) / 2, (1 + 0) / 2, (1 + 1/3) / 2, (0 + 1) / 2
    found = means([Measures(1, 1, 1, 0), Measures(1 / log2(3), 0, 1 / 3, 1)])
    assert found.ndcg_10 == pytest.approx(0.8154648767857288, abs=1e-9)
    assert (found.recall_5, found.mrr_10, found.accuracy_1) == pytest.approx((0.5, 2 / 3, 0.5), abs=1e-9)


def test_same_difference_on_every_question_is_certain() -> None:
    better = [Measures(0.5, 0.5, 0.5, 1)] * 4
    worse = [Measures(0.25, 0.5, 1, 1)] * 4
    found = differences(better, worse)
    # Whatever is drawn, the mean is 0.5 - 0.25.
    assert (found["ndcg_10"].low, found["ndcg_10"].mean, found["ndcg_10"].high) == pytest.approx(
        (0.25,) * 3, abs=1e-9
    )
    assert (found["mrr_10"].low, found["mrr_10"].high) == pytest.approx((-0.5, -0.5), abs=1e-9)


def test_interval_is_of_pairs_and_not_of_two_samples() -> None:
    # Questions differ by 0 or 1 among themselves, the rankings never: as samples of their own they would differ.
    found = differences(
        [Measures(0, 0, 0, 0), Measures(1, 1, 1, 1)] * 10, [Measures(0, 0, 0, 0), Measures(1, 1, 1, 1)] * 10
    )
    assert (found["ndcg_10"].low, found["ndcg_10"].high) == (0, 0)


def test_interval_of_one_question_in_four_is_the_binomial_one() -> None:
    # 100 questions, 25 of which gain 1: the mean's standard deviation is sqrt(0.25 * 0.75 / 100) = 0.0433, so
    # that 95 % of the means lie within 0.25 ± 1.96 * 0.0433 = [0.165, 0.335].
    gained = [Measures(float(number % 4 == 0), 0, 0, 0) for number in range(100)]
    found = differences(gained, [Measures(0, 0, 0, 0)] * 100)["ndcg_10"]
    assert found.mean == pytest.approx(0.25, abs=1e-9)
    assert (found.low, found.high) == pytest.approx((0.165, 0.335), abs=0.015)
