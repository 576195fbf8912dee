"""What the running server can do when it has all the work it can take: measured through its own endpoint.

First the concurrency at which more work brings no more tokens, then three mixes of prompt and answer at that
concurrency, from which prefill and decode are told apart (throughput.fit). Prompts are of random words, so that no
cache holds them; answers are told to go on to their full length (`ignore_eos`, which vLLM knows).
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local_llm.costs.figure import refuse_not_positive
from local_llm.costs.throughput import Saturated, Throughput, fit, worst_error
from local_llm.errors import InvalidInputError, LocalLLMError, UnavailableError

if TYPE_CHECKING:
    import openai

SEED = 7
# The rates of a run's first part are those of a machine that is still filling up.
WARM_UP_SHARE = 0.25
# More workers are tried as long as they bring so much more.
LEAST_GAIN = 1.05
WORDS = ("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "kelp", "maple", "ocean")


@dataclass(frozen=True)
class Mix:
    prompt_words: int
    answer_tokens: int


@dataclass(frozen=True)
class Level:
    """What so many requests at once came to."""

    concurrency: int
    tokens_per_second: float


@dataclass(frozen=True)
class Measured:
    throughput: Throughput
    concurrency: int
    levels: tuple[Level, ...]
    points: tuple[Saturated, ...]

    def facts(self) -> dict[str, Any]:
        """What the ledger keeps."""
        return {
            "seconds_per_prefill_token": self.throughput.seconds_per_prefill_token,
            "seconds_per_decode_token": self.throughput.seconds_per_decode_token,
            "worst_fit_error": worst_error(self.throughput, self.points),
            "concurrency": self.concurrency,
            "levels": [[level.concurrency, level.tokens_per_second] for level in self.levels],
            "points": [[p.uncached_prefill_tokens, p.decode_tokens, p.seconds] for p in self.points],
            "seconds": sum(point.seconds for point in self.points),
        }


class NoAnswerError(InvalidInputError):
    """The runs are too short for answers so slow."""


Tell = Callable[[str], None]


async def measure(
    client: "openai.AsyncOpenAI",
    model: str,
    *,
    seconds: float,
    highest_concurrency: int,
    prompt_words: int,
    answer_tokens: int,
    tell: Tell,
) -> Measured:
    """`seconds` for each of the runs: one for each doubling of the concurrency, and three more.

    Raises: InvalidInputError if no answer comes within a run, UnavailableError if no server does.
    """
    refuse_not_positive(
        seconds=seconds, concurrency=highest_concurrency, prompt_words=prompt_words, answer_tokens=answer_tokens
    )
    middle = Mix(max(1, prompt_words // 2), max(1, answer_tokens // 2))
    mixes = (Mix(prompt_words, max(1, answer_tokens // 16)), Mix(max(1, prompt_words // 16), answer_tokens), middle)
    await _ask(client, model, Mix(1, 1), WORDS[0])  # the first question loads: an adapter, parts of the client
    levels: list[Level] = []
    concurrency = 1
    while concurrency <= highest_concurrency:
        seed = SEED + concurrency
        try:
            found = await drive(client, model, middle, concurrency=concurrency, seconds=seconds, seed=seed)
        except NoAnswerError:
            if not levels:
                raise
            tell(f"{concurrency} at once: too slow for an answer in {seconds:g} s")
            break
        levels.append(Level(concurrency, _tokens_per_second(found)))
        tell(f"{concurrency} at once: {levels[-1].tokens_per_second:,.1f} tokens/s")
        if _saturated(levels):
            break
        concurrency *= 2
    saturated = max(levels, key=lambda level: level.tokens_per_second).concurrency
    points = []
    for number, mix in enumerate(mixes):
        seed = SEED * 1000 + number
        points.append(await drive(client, model, mix, concurrency=saturated, seconds=seconds, seed=seed))
        rate = _tokens_per_second(points[-1])
        tell(f"{mix.prompt_words} words in, {mix.answer_tokens} tokens out: {rate:,.1f} tokens/s")
    return Measured(fit(points), saturated, tuple(levels), tuple(points))


async def drive(
    client: "openai.AsyncOpenAI", model: str, mix: Mix, *, concurrency: int, seconds: float, seed: int
) -> Saturated:
    """So many at once, each asking again as soon as it is answered; counted are answers that end after the warm-up.

    Raises: NoAnswerError if none does, UnavailableError, LocalLLMError for what the server refuses.
    """
    answered: list[tuple[float, int, int]] = []
    words = random.Random(seed)
    began = time.monotonic()

    async def ask_on() -> None:
        while True:
            answered.append(await _ask(client, model, mix, " ".join(words.choices(WORDS, k=mix.prompt_words))))

    try:
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(ask_on())
    except TimeoutError:
        pass  # as it should end
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    warm, end = began + WARM_UP_SHARE * seconds, began + seconds
    counted = [(prompt, answer) for at, prompt, answer in answered if warm <= at <= end]
    if not counted:
        raise NoAnswerError(
            f"of {concurrency} at once none was answered after the warm-up of {warm - began:.1f} s",
            hint="set --seconds higher, or --prompt-words and --answer-tokens lower",
        )
    return Saturated(sum(prompt for prompt, _ in counted), sum(answer for _, answer in counted), end - warm)


async def _ask(client: "openai.AsyncOpenAI", model: str, mix: Mix, prompt: str) -> tuple[float, int, int]:
    """When it was answered, the prompt tokens that were read, and those written."""
    import openai

    try:
        answer = await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=mix.answer_tokens,
            temperature=0,
            extra_body={"ignore_eos": True},
        )
    except openai.APIConnectionError:
        raise UnavailableError("no server answers here", hint="python -m serving") from None
    except openai.APIStatusError as refused:
        raise LocalLLMError(refused.message) from None
    usage = answer.usage
    if usage is None:
        raise LocalLLMError(f"the answers of {model} tell no token counts")
    details = usage.prompt_tokens_details
    cached = 0 if details is None or details.cached_tokens is None else details.cached_tokens
    return time.monotonic(), usage.prompt_tokens - cached, usage.completion_tokens


def _saturated(levels: Sequence[Level]) -> bool:
    """Whether the last two doublings brought nothing: one alone may be chance, of slow answers few end in a run."""
    rates = [level.tokens_per_second for level in levels]
    return len(rates) > 2 and max(rates[-2:]) < LEAST_GAIN * max(rates[:-2])


def _tokens_per_second(found: Saturated) -> float:
    return (found.uncached_prefill_tokens + found.decode_tokens) / found.seconds
