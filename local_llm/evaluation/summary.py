"""What an evaluation comes to: means with their intervals, and which differences between models are real."""

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from local_llm.bootstrap import FEWEST_GROUPS, Interval, interval
from local_llm.evaluation.answers import Answer
from local_llm.evaluation.costs import Cost, HourPrice, cost_of
from local_llm.evaluation.question_set import Question
from local_llm.evaluation.scoring import LOWER_IS_BETTER, Score
from local_llm.evaluation.targets import Target

ACCEPTED = "accepted"
REAL, NOT_TOLD_APART, TOO_FEW = "real", "not told apart", "cannot be told"


@dataclass(frozen=True)
class Judged:
    """A question, what one target answered, and what that is worth."""

    question: Question
    answer: Answer
    score: Score

    def values(self) -> dict[str, float]:
        """All that can be compared between two answers to this question."""
        found = {ACCEPTED: float(self.score.accepted), **self.score.measures}
        for name in ("ttft_seconds", "total_seconds"):
            seconds = getattr(self.answer, name)
            if seconds is not None and not self.answer.failed:
                found[name] = seconds
        return found


@dataclass(frozen=True)
class Estimate:
    """A mean over `cases`; its bounds at 95 % are None where too few cases were there to tell them."""

    mean: float
    low: float | None
    high: float | None
    cases: int


@dataclass(frozen=True)
class Percentiles:
    """In seconds, by nearest rank: each is a time that was measured. None: none was."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True)
class Summary:
    """Of one target. Tokens are those of all answers, None where no answer tells them; `from_before`: answers that
    an earlier evaluation asked for; `by_tag`: questions and accepted answers of each."""

    name: str
    strategy: str
    model: str | None
    collection: str | None
    questions: int
    failed: int
    accepted: int
    accepted_share: Estimate | None
    quality: dict[str, Estimate]
    ttft_seconds: Percentiles
    total_seconds: Percentiles
    input_tokens: int | None
    output_tokens: int | None
    cost: Cost
    from_before: int
    unjudged: int
    by_tag: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """`one` minus `other` of a measure, over the questions that both answered."""

    measure: str
    one: str
    other: str
    mean: float
    low: float | None
    high: float | None
    cases: int
    verdict: str

    @property
    def better(self) -> str | None:
        """Whose answers are better by this measure; None unless the difference is real."""
        if self.verdict != REAL:
            return None
        return self.one if (self.mean > 0) != (self.measure in LOWER_IS_BETTER) else self.other


def summarize(
    target: Target,
    judged: Sequence[Judged],
    groups: Mapping[str, Hashable],
    *,
    hour: HourPrice,
    from_before: int = 0,
    judge_asked: bool = False,
) -> Summary:
    """`groups`: by a question's id, which of them nearly say the same."""
    answers = [one.answer for one in judged]
    good = [one for one in answers if not one.failed]
    accepted = sum(one.score.accepted for one in judged)
    quality = _quality(judged, groups)
    return Summary(
        name=target.name,
        strategy=target.strategy,
        model=next((one.model for one in good if one.model), target.model),
        collection=target.collection,
        questions=len(judged),
        failed=len(answers) - len(good),
        accepted=accepted,
        accepted_share=quality.pop(ACCEPTED, None),
        quality={name: one for name, one in quality.items() if name not in ("ttft_seconds", "total_seconds")},
        ttft_seconds=percentiles([one.ttft_seconds for one in good if one.ttft_seconds is not None]),
        total_seconds=percentiles([one.total_seconds for one in good if one.total_seconds is not None]),
        input_tokens=_total([one.input_tokens for one in good]),
        output_tokens=_total([one.output_tokens for one in good]),
        cost=cost_of(target, answers, accepted, hour),
        from_before=from_before,
        unjudged=sum(one.question.answerable and "judge" not in one.score.measures for one in judged)
        if judge_asked
        else 0,
        by_tag=_by_tag(judged),
    )


def percentiles(seconds: Sequence[float]) -> Percentiles:
    """The smallest value that so many of a hundred values do not exceed."""
    if not seconds:
        return Percentiles(None, None, None)
    ranked = sorted(seconds)
    return Percentiles(*(ranked[math.ceil(share * len(ranked) / 100) - 1] for share in (50, 95, 99)))


def differences(
    judged: Mapping[str, Sequence[Judged]], groups: Mapping[str, Hashable], measures: Sequence[str] | None = None
) -> list[Difference]:
    """Of all pairs of targets, on the questions that both answered. `measures`: only these."""
    values = {name: {one.question.id: one.values() for one in rows} for name, rows in judged.items()}
    found = []
    for one, other in combinations(values, 2):
        common = [identifier for identifier in values[one] if identifier in values[other]]
        names = {name for identifier in common for name in values[one][identifier]}
        for measure in sorted(names if measures is None else names & set(measures)):
            cases = [at for at in common if measure in values[one][at] and measure in values[other][at]]
            if cases:
                paired = [values[one][at][measure] - values[other][at][measure] for at in cases]
                found.append(_difference(measure, one, other, paired, [groups[at] for at in cases]))
    return found


def _difference(measure: str, one: str, other: str, paired: list[float], groups: Sequence[Hashable]) -> Difference:
    estimate, distinct = _estimate(paired, groups), len(set(groups))
    if distinct < FEWEST_GROUPS or estimate.low is None or estimate.high is None:
        verdict = TOO_FEW
    else:
        certain = Interval(estimate.mean, estimate.low, estimate.high).is_certain
        verdict = REAL if certain else NOT_TOLD_APART
    return Difference(measure, one, other, estimate.mean, estimate.low, estimate.high, estimate.cases, verdict)


def _quality(judged: Sequence[Judged], groups: Mapping[str, Hashable]) -> dict[str, Estimate]:
    values, whose = defaultdict[str, list[float]](list), defaultdict[str, list[Hashable]](list)
    for one in judged:
        for name, value in one.values().items():
            values[name].append(value)
            whose[name].append(groups[one.question.id])
    return {name: _estimate(values[name], whose[name]) for name in values}


def _estimate(values: list[float], groups: Sequence[Hashable]) -> Estimate:
    mean = sum(values) / len(values)
    if len(set(groups)) < 2:
        return Estimate(mean, None, None, len(values))
    found = interval(values, groups)
    return Estimate(mean, found.low, found.high, len(values))


def _total(counts: Sequence[Any]) -> int | None:
    known = [one for one in counts if one is not None]
    return sum(known) if known else None


def _by_tag(judged: Sequence[Judged]) -> dict[str, tuple[int, int]]:
    tags = sorted({tag for one in judged for tag in one.question.tags})
    found = {}
    for tag in tags:
        rows = [one for one in judged if tag in one.question.tags]
        found[tag] = (len(rows), sum(one.score.accepted for one in rows))
    return found
