"""What the answers of an evaluation cost, each and each that is accepted."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from local_llm.costs.request import TokenPrices, hosted_usd
from local_llm.costs.units import SECONDS_PER_HOUR
from local_llm.evaluation.answers import Answer
from local_llm.evaluation.targets import Target

UNPRICED = "unpriced"
NONE_ACCEPTED = "none accepted"


@dataclass(frozen=True)
class Cost:
    """`usd` None: unpriced; `basis` says how it was found, or why it was not.

    `usd_per_accepted_answer` is None for what is unpriced and where none was accepted: `per_accepted` tells which.
    """

    usd: float | None
    basis: str
    usd_per_question: float | None = None
    usd_per_accepted_answer: float | None = None

    @property
    def per_question(self) -> str:
        return UNPRICED if self.usd_per_question is None else dollars(self.usd_per_question)

    @property
    def per_accepted(self) -> str:
        if self.usd is None:
            return UNPRICED
        return NONE_ACCEPTED if self.usd_per_accepted_answer is None else dollars(self.usd_per_accepted_answer)


@dataclass(frozen=True)
class HourPrice:
    """Of this machine, in US dollars; None: unpriced. `assumed`: nobody said so, it is the settings' default."""

    usd: float | None
    assumed: bool = False

    @property
    def note(self) -> str:
        return " (assumed: nobody set cost.machine_usd_per_hour)" if self.assumed else ""


def cost_of(target: Target, answers: Sequence[Answer], accepted: int, hour: HourPrice) -> Cost:
    """By the prices of its tokens where it has some, else by this machine's time while it was asked."""
    if not answers:
        return Cost(None, "nothing was answered")
    if target.prices is not None:
        usd, basis = _by_tokens(target.prices, answers)
    elif target.is_local:
        usd, basis = _by_time(answers, hour)
    else:
        usd, basis = None, "no price was given (--price NAME=INPUT/OUTPUT)"
    if usd is None:
        return Cost(None, basis)
    return Cost(usd, basis, usd / len(answers), usd / accepted if accepted else None)


def busy_seconds(answers: Iterable[Answer]) -> float:
    """During which at least one question was being answered: what overlaps counts once, pauses between runs not."""
    spans = sorted(
        (one.asked_at, one.asked_at + one.total_seconds)
        for one in answers
        if one.asked_at is not None and one.total_seconds is not None
    )
    busy, until = 0.0, 0.0
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return busy


def dollars(usd: float) -> str:
    """Four digits that count, at least cents. `usd` is above 0."""
    return f"${usd:,.{max(2, 3 - math.floor(math.log10(usd)))}f}"


def _by_tokens(prices: TokenPrices, answers: Sequence[Answer]) -> tuple[float | None, str]:
    answered = [one for one in answers if not one.failed]
    if any(one.input_tokens is None or one.output_tokens is None for one in answered):
        return None, "its tokens are not known"
    usd = sum(
        hosted_usd(
            prices,
            input_tokens=one.input_tokens or 0,
            output_tokens=one.output_tokens or 0,
            cached_tokens=one.cached_tokens or 0,
        )
        for one in answered
    )
    return (usd, "tokens x their prices") if usd > 0 else (None, "its price is 0")


def _by_time(answers: Sequence[Answer], hour: HourPrice) -> tuple[float | None, str]:
    seconds = busy_seconds(answers)
    if not hour.usd or not seconds:
        return None, "an hour of this machine has no price (--machine-usd-per-hour)"
    usd = seconds / SECONDS_PER_HOUR * hour.usd
    basis = f"{seconds:.1f} s of this machine's time while it was asked x ${hour.usd:g} an hour{hour.note}"
    return usd, basis
