"""What answers are worth: shares and means over questions, with intervals over whole articles."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from local_llm.answer_measures import containment, exact_match, f1, without_markers
from local_llm.bootstrap import Interval, interval
from local_llm.prompts import is_refusal
from quality_bench.strategies.asking import Answer
from quality_bench.strategies.data import Question, name_of

MEASURES = {"exact_match": exact_match, "f1": f1, "containment": containment}


@dataclass(frozen=True)
class Scored:
    """One answer in figures of 0 to 1. `cites`: the gold document is among those it cites."""

    question: Question
    values: dict[str, float]
    refused: bool
    cites: bool
    cites_any: bool
    seconds: float


def scored(question: Question, answer: Answer) -> Scored:
    said = without_markers(answer.text).strip()
    return Scored(
        question,
        {name: measure(said, question.answer) for name, measure in MEASURES.items()},
        is_refusal(said),
        name_of(question.document) in answer.cited,
        bool(answer.cited),
        answer.seconds,
    )


def score_all(questions: Sequence[Question], answers: Sequence[Answer]) -> list[Scored]:
    """Only questions that were answered, in their order."""
    by_id = {one.question: one for one in answers}
    return [scored(one, by_id[one.id]) for one in questions if one.id in by_id]


@dataclass(frozen=True)
class Summary:
    answers: int
    measures: dict[str, Interval]
    refused: Interval
    cites_gold: float
    cites_any: float
    median_seconds: float


def summary(found: Sequence[Scored]) -> Summary:
    articles = [one.question.article for one in found]
    return Summary(
        len(found),
        {name: interval([one.values[name] for one in found], articles) for name in MEASURES},
        refused(found),
        statistics.fmean(one.cites for one in found),
        statistics.fmean(one.cites_any for one in found),
        statistics.median(one.seconds for one in found),
    )


def refused(found: Sequence[Scored]) -> Interval:
    return interval([float(one.refused) for one in found], [one.question.article for one in found])


def contrast(one: Sequence[Scored], other: Sequence[Scored]) -> dict[str, Interval]:
    """By how much the first is better, for each measure, on the questions that both answered."""
    theirs = {each.question.id: each for each in other}
    pairs = [(each, theirs[each.question.id]) for each in one if each.question.id in theirs]
    articles = [mine.question.article for mine, _ in pairs]
    return {
        name: interval([mine.values[name] - their.values[name] for mine, their in pairs], articles)
        for name in MEASURES
    }


def contrasts(
    found: Mapping[str, Sequence[Scored]], wanted: Sequence[tuple[str, str]]
) -> dict[str, dict[str, Interval]]:
    """Of those pairs of settings that are both there, by the name `one - other`."""
    return {
        f"{one} - {other}": contrast(found[one], found[other])
        for one, other in wanted
        if one in found and other in found
    }
