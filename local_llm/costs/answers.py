"""What an answer costs on this machine, from what was measured on it."""

from dataclasses import dataclass

from local_llm.costs.units import SECONDS_PER_HOUR, TOKENS_PER_MILLION


@dataclass(frozen=True)
class AnswersMeasured:
    """Answers given one at a time: nothing else ran, so the machine's whole time was theirs."""

    answers: int
    seconds: float
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class AnswersCost:
    usd_per_answer: float
    usd_per_million_tokens: float


def cost_one_at_a_time(measured: AnswersMeasured, machine_usd_per_hour: float) -> AnswersCost:
    """seconds / 3600 x price of an hour, shared out over the answers and over all their tokens.

    An upper bound: an engine kept busy answers several at once in nearly the same time.

    Raises: ValueError if nothing was measured.
    """
    tokens = measured.prompt_tokens + measured.completion_tokens
    if measured.answers <= 0 or tokens <= 0:
        raise ValueError("no answers were measured")
    usd = measured.seconds / SECONDS_PER_HOUR * machine_usd_per_hour
    return AnswersCost(usd / measured.answers, usd / tokens * TOKENS_PER_MILLION)
