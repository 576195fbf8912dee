"""Measures of answers: each expected value is derived by hand."""

import pytest

from local_llm.answer_measures import containment, exact_match, f1, rouge_l, without_markers


def test_case_punctuation_and_articles_make_no_difference() -> None:
    assert exact_match("The Eiffel-Tower.", "eiffel tower") == 1
    assert exact_match("Eiffel", "eiffel tower") == 0


def test_f1_counts_each_word_as_often_as_it_stands_there() -> None:
    # said: red red car (3), wanted: red car now (3); shared: red once, car = 2. F1 = 2 * 2 / 6
    assert f1("red, red car", "The red car now") == pytest.approx(2 / 3, abs=1e-9)
    assert f1("blue", "red") == 0


def test_containment_is_of_words_side_by_side() -> None:
    assert containment("It was in 1912, of course.", "in 1912") == 1
    assert containment("It was in 19125.", "1912") == 0
    assert containment("the red and fast car", "red car") == 0


def test_an_article_alone_is_a_word() -> None:
    """The right choice of four may be "A": without articles it stood in every answer."""
    assert (exact_match("a", "A"), exact_match("The", "A")) == (1, 0)
    assert (containment("B", "A"), containment("anything", "!"), containment("...", "!")) == (0, 0, 1)


def test_rouge_l_keeps_the_order() -> None:
    # Longest common subsequence of "b c d" and "d b c" is "b c": 2; F1 = 2 * 2 / 6
    assert rouge_l("b c d", "d b c") == pytest.approx(2 / 3, abs=1e-9)


def test_empty_answers_match_nothing_but_nothing() -> None:
    assert (f1("", "x"), f1("x", ""), f1("", "")) == (0, 0, 1)
    assert rouge_l("", "x") == 0


def test_markers_say_nothing() -> None:
    assert without_markers("In 1912 [2]. Not [a].") == "In 1912. Not [a]."
