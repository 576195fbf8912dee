"""How fast a machine is when it has all the work it can do, and what its tokens cost then.

A saturated engine spends its time on two things, at different speeds: reading prompts (prefill) and writing answers
(decode). Prompt tokens that it finds in its cache it does not read again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from local_llm.costs.figure import refuse_negative, refuse_not_a_share, refuse_not_positive
from local_llm.costs.units import SECONDS_PER_HOUR, TOKENS_PER_MILLION
from local_llm.errors import InvalidInputError

# Two mixes are told apart if neither is nearly a multiple of the other.
LEAST_DETERMINANT = 1e-3


@dataclass(frozen=True)
class Saturated:
    """What a saturated engine did in `seconds`."""

    uncached_prefill_tokens: float
    decode_tokens: float
    seconds: float


@dataclass(frozen=True)
class Throughput:
    """Seconds of the saturated machine that one token takes; not what one request waits for it."""

    seconds_per_prefill_token: float
    seconds_per_decode_token: float

    def __post_init__(self) -> None:
        refuse_not_positive(seconds_per_decode_token=self.seconds_per_decode_token)
        refuse_negative(seconds_per_prefill_token=self.seconds_per_prefill_token)

    def seconds(self, *, uncached_prefill_tokens: float, decode_tokens: float) -> float:
        """a x uncached prefill tokens + b x decode tokens.

        Raises: InvalidInputError for negative counts.
        """
        refuse_negative(uncached_prefill_tokens=uncached_prefill_tokens, decode_tokens=decode_tokens)
        return (
            self.seconds_per_prefill_token * uncached_prefill_tokens + self.seconds_per_decode_token * decode_tokens
        )


def throughput_of(*, prefill_tokens_per_second: float, decode_tokens_per_second: float) -> Throughput:
    """From rates, each with the whole machine at that work alone."""
    refuse_not_positive(
        prefill_tokens_per_second=prefill_tokens_per_second, decode_tokens_per_second=decode_tokens_per_second
    )
    return Throughput(1 / prefill_tokens_per_second, 1 / decode_tokens_per_second)


def fit(points: Sequence[Saturated]) -> Throughput:
    """The a, b >= 0 that bring a x prefill + b x decode nearest to the seconds, in least squares of their shares.

    Each point is divided by its seconds, so that a long measurement counts no more than a short one. A coefficient
    that would be negative is zero, and the other fitted alone.
    Source: Lawson and Hanson 1974, Solving Least Squares Problems, chapter 23 (two unknowns need no more).

    Raises: InvalidInputError if the points do not tell the two apart.
    """
    rows = [(p.uncached_prefill_tokens / p.seconds, p.decode_tokens / p.seconds) for p in points if p.seconds > 0]
    xx, yy = sum(x * x for x, _ in rows), sum(y * y for _, y in rows)
    xy, sx, sy = sum(x * y for x, y in rows), sum(x for x, _ in rows), sum(y for _, y in rows)
    determinant = xx * yy - xy * xy
    if xx == 0 or yy == 0 or determinant < LEAST_DETERMINANT * xx * yy:
        raise InvalidInputError(
            "reading and writing cannot be told apart: the measurements have one mix of prompt and answer tokens",
            hint="measure with a long prompt and a short answer, and the other way round",
        )
    prefill, decode = (yy * sx - xy * sy) / determinant, (xx * sy - xy * sx) / determinant
    if prefill < 0:
        return Throughput(0.0, sy / yy)
    if decode <= 0:
        raise InvalidInputError("by these measurements writing takes no time", hint="measure for longer")
    return Throughput(prefill, decode)


def worst_error(throughput: Throughput, points: Sequence[Saturated]) -> float:
    """The largest share by which the fit misses a measurement."""
    return max(
        abs(
            throughput.seconds(uncached_prefill_tokens=p.uncached_prefill_tokens, decode_tokens=p.decode_tokens)
            / p.seconds
            - 1
        )
        for p in points
    )


def usd_per_million_tokens(seconds_per_token: float, *, usd_per_hour: float, utilisation: float) -> float:
    """seconds a token x $/hour / 3600 x 10^6 / utilisation.

    `utilisation` is the share of the saturated throughput that is asked for on the average of all hours paid.

    Raises: InvalidInputError for a utilisation not in (0, 1].
    """
    refuse_not_a_share(utilisation=utilisation)
    refuse_negative(usd_per_hour=usd_per_hour, seconds_per_token=seconds_per_token)
    return seconds_per_token * usd_per_hour / SECONDS_PER_HOUR * TOKENS_PER_MILLION / utilisation
