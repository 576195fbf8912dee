"""Settling: what is told, what needs answer, what was measured, and which of them holds."""

from typing import Any

import pytest

from local_llm.decision.evidence import Evidence
from local_llm.decision.questions import FIVE, NEEDS, Question
from local_llm.decision.settling import settle
from local_llm.decision.told import Told

ALL_NO: dict[str, Any] = {
    "changes": False,
    "citations": False,
    "examples": 0,
    "low_latency": False,
    "both_affordable": False,
}


def measured(question: Question, answer: bool | None) -> Evidence:
    return Evidence(question, answer, "a figure", 1, "units")


@pytest.mark.parametrize("need", NEEDS)
def test_each_need_answers_its_question_whatever_was_told(need: str) -> None:
    question, words = NEEDS[need]
    answers = settle(Told.model_validate(ALL_NO | {need: True}), ()).answers()
    changed = {one for one in (*FIVE, "behaviour") if answers.to(one).yes}
    assert changed == {question}
    assert answers.to(question).source == "input"
    assert words in answers.to(question).because


@pytest.mark.parametrize("need", NEEDS)
def test_a_need_that_is_not_there_answers_nothing(need: str) -> None:
    answers = settle(Told.model_validate(ALL_NO | {need: False}), ()).answers()
    assert not any(answers.to(one).yes for one in (*FIVE, "behaviour"))


def test_every_kind_of_need_of_the_article_is_there() -> None:
    assert {name: question for name, (question, _) in NEEDS.items()} == {
        "per_user_access": "changes",
        "too_many_documents": "changes",
        "add_remove_without_retraining": "changes",
        "consistent_times": "low_latency",
        "format_needed": "behaviour",
        "style_needed": "behaviour",
        "terms_needed": "behaviour",
    }


@pytest.mark.parametrize(("count", "yes"), [(0, False), (99, False), (100, True), (5000, True)])
def test_a_hundred_examples_are_enough(count: int, yes: bool) -> None:
    answer = settle(Told.model_validate(ALL_NO | {"examples": count}), ()).answers().examples
    assert (answer.yes, answer.source) == (yes, "told")
    assert f"{count:,} examples" in answer.because


@pytest.mark.parametrize("found", [True, False])
def test_what_was_not_told_is_measured(found: bool) -> None:
    settled = settle(Told(), [measured("changes", found), measured("low_latency", None)])
    answer = settled.known["changes"]
    assert (answer.yes, answer.source, answer.because) == (found, "measured", "a figure")
    assert settled.missing == ("examples", "citations", "low_latency", "both_affordable")
    assert settled.contradictions == ()


@pytest.mark.parametrize("told", [True, False])
def test_what_was_told_holds_and_the_contradiction_is_shown(told: bool) -> None:
    settled = settle(Told(changes=told), [measured("changes", not told), measured("low_latency", True)])
    assert (settled.known["changes"].yes, settled.known["changes"].source) == (told, "told")
    ((question, said, figure),) = [(one.question, one.told, one.figure) for one in settled.contradictions]
    assert (question, said, figure) == ("changes", told, "a figure")


def test_told_examples_are_compared_by_the_threshold() -> None:
    few = [measured("examples", False)]
    assert settle(Told(examples=99), few).contradictions == ()
    assert [one.told for one in settle(Told(examples=100), few).contradictions] == [True]
